"""Chinese and English numerals as numbers, and the words that look like numerals. Pure.

All functions take folded text (`reward.text.fold`). Values are exact: an int where whole, else a float rounded to six
digits; a run too long to be a number of anything is its own text.
"""

from __future__ import annotations

import re

Value = int | float | str

NUMERALS = "零〇一二两三四五六七八九十百千万亿俩仨"
_PLACES = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "俩": 2,
    "仨": 3,
}
_RANGE = re.compile("[一二两三四五六七八九]{2}")
_LONGEST = 18  # digits or numerals; beyond, a run is a code, not a quantity

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ENGLISH = {word: value for value, word in enumerate(_SMALL.split(" "))} | {
    word: 10 * value for value, word in enumerate(_TENS.split(" "), start=2)
}
_ENGLISH_PLACES = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
# "one" is an article or a pronoun, "second" a unit.
ENGLISH_ONE = r"(?<![a-z])(?:one|first)(?![a-z])"
ENGLISH_NUMERAL = (
    rf"(?:(?<![a-z])(?:{'|'.join(sorted(_ENGLISH.keys() - {'one', 'zero'}, key=len, reverse=True))})"
    rf"(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?(?: (?:{'|'.join(_ENGLISH_PLACES)}))?(?![a-z]))"
)
# What begins with a numeral and counts nothing: words, names of things, set phrases.
IDIOMS = re.compile(
    "一(?:[般直起些样定旦共切边面律致生番会阵方向同概贯味再经线流体身站键样下块儿道]|日三餐|次性|对一"
    "|天到晚|个劲|系列|部分|辈子|把手|条龙|卡通|次函|元[一二]次|手)"
    "|二(?:维码|手|次元|甲双胍|胎|孩|尖瓣|氧化|酰|元函|次函|胺|硝|陈|丁|郎|哥|叔|舅|房东|战|维|黄|轮车)"
    "|两(?:对半|性|侧|者|旁|口子|全|用|面|难|栖|极|可|广|会|岸|弊|腿|眼|手|耳|边|肋|胁|癌)"
    "|三(?:高|七|九|餐|明治|文鱼|伏|八|叉|角|围|甲|亚|国|思|无|农|好|包|观|聚氰|氯|酰|甘|黄|金|轮|阳|阴|维|方|心)"
    "|四(?:季|川|肢|逆|物|君|处|周围|大|面|海|轮|妙)"
    "|五(?:一|官|谷|花|脏|福|味子|险一金|笔|金|香|行|粮|四|指|羊|常|线谱|更)"
    "|六(?:一|神|味|安|腑|合|边)|七(?:夕|喜|匹狼|里香|叶|上八下)|八(?:卦|字|宝|珍|角|一|达岭|戒|段锦|九不离十)"
    "|九(?:阳|寨|华|牛|州|阴|九)|十(?:分(?![钟之])|足|字|全|二指肠|二生肖|二经|堰|八罗|三香)"
    "|百(?:合|度|香|日咳|分百|年|科|病|姓|货|里香|余|亿补贴|事|草|变|家|威|倍|会|毒|搭|花)"
    "|千(?:万(?!元|块|人|级|以|吨|粉)|张|层|禧|年|古|里|牛|禾|方百计|人千面|篇一律|金|岛|寻)"
    "|万(?:一|能|达|科|事|物|艾可|古|分|圣|年|利|全|家|历|象|有引力|难|众|通)|亿(?:万|欧)"
)
# A numeral after these belongs to the word.
INSIDE_WORD = frozenset("统唯单之不逐划归专任合守万如始")

# Numerals of cheques and vouchers; one alone may be a surname or a verb (收拾), before a unit or in a run it counts.
_FORMAL = str.maketrans("壹贰叁肆伍陆柒捌玖拾佰仟萬弐参", "一二三四五六七八九十百千万二三")
_FORMAL_DIGITS = "壹贰叁肆伍陆柒捌玖拾佰仟萬弐参"
_FORMAL_RUN = re.compile(
    f"[{_FORMAL_DIGITS}{NUMERALS}]*[{_FORMAL_DIGITS}][{_FORMAL_DIGITS}{NUMERALS}]+"
    f"|[{_FORMAL_DIGITS}](?= ?(?:毫克|微克|克|片|粒|颗|丸|毫升|支|瓶|盒|袋|包|次|天|日|小时|mg|g|ml|板|滴|单位))"
)


def with_plain_numerals(text: str) -> str:
    """Return the text with formal numerals as plain ones (伍佰毫克: 五百毫克); every character keeps its place."""
    return _FORMAL_RUN.sub(lambda match: match.group().translate(_FORMAL), text)


def as_value(number: str) -> Value:
    """The value of a run of digits with an optional decimal point: "0.50" is 0.5, "007" is 7."""
    if len(number) > _LONGEST:
        return number.lstrip("0")
    return _exact(float(number)) if "." in number else int(number)


def _exact(number: float) -> int | float:
    rounded = round(number, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def times(value: Value, factor: float) -> Value:
    """`value` times `factor`; a code stays itself."""
    return value if isinstance(value, str) else _exact(value * factor)


def plus(value: Value, more: float) -> Value:
    return value if isinstance(value, str) else _exact(value + more)


def numeral_value(numeral: str) -> Value:
    """The number a run of `NUMERALS` stands for: 二十五 is 25, 二〇二六 is 2026, 两千五 is 2500, 三点五 is 3.5.

    A run with digits of another script is no number: its value is its own text.
    """
    whole, _, decimals = numeral.partition("点")
    is_numeral = all(character in _DIGITS or character in _PLACES for character in whole + decimals)
    if len(numeral) > _LONGEST or not is_numeral:
        return numeral
    if decimals:
        return _exact(float(f"{numeral_value(whole or '零')}.{''.join(str(_DIGITS[digit]) for digit in decimals)}"))
    if _DIGITS.keys() >= set(whole):
        return int("".join(str(_DIGITS[character]) for character in whole))
    total = section = digit = 0
    for character in whole:
        if character == "亿":
            total, section, digit = (total + section + digit or 1) * _PLACES[character], 0, 0
        elif character == "万":
            total, section, digit = total + (section + digit or 1) * _PLACES[character], 0, 0
        elif character in _PLACES:
            section, digit = section + (digit or 1) * _PLACES[character], 0
        else:
            digit = _DIGITS[character]
    if whole[-2:-1] in ("百", "千", "万", "亿"):
        digit = digit * _PLACES[whole[-2]] // 10 or digit
    return total + section + digit


def numeral_values(numeral: str) -> tuple[Value, ...]:
    """The numbers a run of `NUMERALS` may stand for: of a range both ends (三四: 3 and 4, 二三十: 20 and 30)."""
    ends = _RANGE.search(numeral)
    # Longer runs name no range; a pair with a place after it is one, two bare digits may be.
    longest = 3 if _DIGITS.keys() >= set(numeral) else 8
    if ends is None or len(numeral) > longest or "点" in numeral:
        return (numeral_value(numeral),)
    first, second = ends.start(), ends.start() + 1
    low = numeral_value(numeral[:second] + numeral[second + 1 :])
    high = numeral_value(numeral[:first] + numeral[second:])
    return (low, high)


def english_value(words: str) -> Value:
    """The number an English numeral stands for: "twenty-five" is 25, "three hundred" is 300."""
    total = 0
    for word in words.replace("-", " ").split():
        total = total * _ENGLISH_PLACES[word] if word in _ENGLISH_PLACES else total + _ENGLISH[word]
    return total
