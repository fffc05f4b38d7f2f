"""What a text denies: each negation with the words it reaches. Pure, linear in the text.

All functions take folded text (`reward.text.fold`). A question of the form A-not-A (能不能) denies nothing, nor
does a word that merely holds the character (特别, 不良反应, 非洛地平).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# 能不能, 有没有, 可不可以, 拆没拆封
A_NOT_A = re.compile(r"([\u4e00-\u9fff])[不没]\1")
# The bare marks of negation, for those that must tell texts apart rather than understand them.
MARKS = re.compile(
    r"[不没无未勿否]|非(?!常)|(?<![特区分级性类差个鉴])别"
    r"|(?P<english>(?<![a-z])(?:not?|never|without|cannot)(?![a-z])|(?<=[a-z])n['’]t(?![a-z]))"
)
_ANY = re.compile(r"[不没无未非别勿莫免禁]|n[o'’]|without|cannot|never")

_WORDS = (
    # 不
    "不舒服|不适(?!合|用|宜)|不适宜?人群|不宜人群|不适用人群|不稳定|不稳|不良|不锈钢|不好意思|不错|不同|不过(?![敏期关量滤度夜审])|不仅|不但|不管|不论|不然"
    "|不如|不光|不只|不断|不停|不久|不少|不止|不足|不孕|不育|不安|不济|不振|不畅|不调|不全|不规律|不规则|不均|不通|不顺|不佳"
    "|不对劲|不得不|不知道?|不清楚|不懂|不明白|不了解|不确定|不晓得|不大好|不太[一-鿿]|不怎么|差不多|对不起|了不起|来不及|舍不得"
    "|不由得|巴不得|恨不得|不客气|不用谢|不得了|不消化|消化不|不要紧|不对称|不饱和|不限|不锈|不倒翁|不二|不时|不利|不当"
    "|不干胶|不可思议|不亦乐乎|不粘锅|不对付|不定期|不定时|不定项|不定式|不等式|一不小心|不小心|用不用|不妨|不愧|不见得|不外乎|动不动"
    "|毫不|不惜|不忘|不日|不便|不满意|不好(?=[，。 吗]|$)"
    # 没
    "|了没(?=[ ?,。]|$)|没事|没关系|没错|没准|没有?(?:精神|胃口|食欲|力气|劲|睡意)|没药(?![了吃品店])"
    "|没收(?![到货件拾费钱入据])|淹没|出没|沉没|没落|没完没了|没(?:什么|啥)(?=[的吗。]|$)|没谱|没辙|没问题"
    # 无
    "|无论|无糖(?!尿)|无聊|无意|无线|无花果|无氧|无忧|无锡|无数|无比|无所谓|无人机|无缝|无敌|无穷|无限|无极|无水|无菌|无添加|无公害|无力|无痛"
    "|无理由|无障碍|无纸化|无非|无关紧要|无名|无机|无心|无奈|无常|无偿|无故|无中生有|无烟"
    # 未
    "|未来|未必|未免|未知|未央|未名|未婚|未成年人?"
    # 非
    "|非常|非洲|非洛地平|非甾体|非那雄胺|非布司他|非凡|非诺贝特|非遗|是非|除非|莫非|若非|非得|非要|非转基因|非农|非同|非法"
    # 别
    "|别墅|特别|分别|区别|性别|级别|个别|鉴别|辨别|差别|类别|识别|告别|离别|国别|别人|别的|别家|别名|别扭|别处|别样|别致|判别|派别"
    "|各别|送别|阔别|道别|科别|班别|组别|别称|别克|别针"
    # 勿 莫 免 禁
    "|勿忘我|莫名|阿莫西林|阿莫|莫沙必利|莫西沙星|莫匹罗星|莫言|免疫|免费|避免|难免|不免|免税|免单|免息|免邮|减免|豁免|免修|免考|免试|免签|禁忌|禁用|禁食"
    "|不禁|情不自禁|禁止"
    # English
    r"|(?<![a-z])no\.(?= ?\d)"
    r"|(?<![a-z])(?:not only|no longer|no one|whether or not|or not|why not|not just|no matter)(?![a-z])"
)
_CUES = (
    r"(?P<state>并没有|还没有|从没有|没有|从没|还没|没|并未|从未|尚未|未曾|未|无|并非|非|不是|不属于|不在|不具备|排除|否认)"
    r"|(?P<act>不|别|勿|莫)"
    r"|(?P<english>(?<![a-z])(?:not|never|without|cannot|no|non)(?![a-z])|(?<=[a-z])n['’]t(?![a-z]))"
)
_SCAN = re.compile(rf"(?P<word>{_WORDS})|(?P<whether>([一-鿿])[不没]\3)|{_CUES}")
# Words between a negation and what it denies.
_LIGHT = re.compile(
    r"(?:曾经?|一直|再|有过?|得过?|患过?有?|犯过|查出来?|检查出|确诊|出现过?|发生过?|存在|处于|在|是|属于|正在|[做动开]过?(?=手术|刀)|做过|任何|对[^，。,]{1,6}?(?=过敏))"
)
_LIGHT_ENGLISH = re.compile(
    r"(?:a|an|the|any|been|be|being|have|has|had|is|are|was|were|to|do|does|did|yet|ever|really|also|so|very|that|it|he|she"
    r"|they|we|you|i|his|her|their|its|my|in|on|of|for|with|at|by|from)(?![a-z]) ?"
)
_END = (
    r"[^a-z0-9\u4e00-\u9fff]|的|了|吗|呢|吧|啊|么|就|和|跟|与|也|还|才|是否|怎么|怎样|如何|咋|什么|啥|哪|多久|多少|之?前|时"
    r"|期间|人群"
)
_NOTHING = re.compile(_END)
_STOP = re.compile(rf"{_END}|能|可以|会|(?<![想需必主重])要")
_REACH = 8  # characters at most that a Chinese negation denies
_ENGLISH_WORD = re.compile(r"[a-z][a-z-]+")
# 不能吃吗 asks what 能吃吗 asks.
_ASKS = re.compile(r"[^，。？！,.?!\n]{0,40}?(?:吗|(?<!什)么|嘛)(?:[，。？！,.?! ]|$)")
# A second verb that the question may be about: 不含糖的有吗.
_ABLE = re.compile("能|可以|可|会|是|用|要|该|行|需|有|买|退|换|算")
_AUXILIARY_FIRST = re.compile(
    r"(?:^|[.?!,] ?|(?:who|what|when|where|why|how|which) )"
    r"(?:is|are|was|were|do|does|did|has|have|had|ca|could|should|would|wo)$"
)
_JOINT = re.compile("[、,，/和或及与跟 ]")
# 效果不佳 says what 没效果 says.
_POOR = re.compile(
    " ?(?:[都也]?(?:不|没|无)|很?差|欠佳|较?低|减退|异常|失败|消失|缺失|下降|丧失|障碍|推迟|延迟|欠|缺|有限|困难)"
)
# 孕妇除外, 糖尿病 阴性
_EXCEPT = re.compile(r" ?(?:除外|以外|之外|阴性|不算|free(?![a-z]))")
# 打不开, 睡不着: a negation, of the first verb or of the result.
COMPLEMENT = re.compile(r"([\u4e00-\u9fff])不([了开上下着到出起来去动清懂会完成见住掉])")


@dataclass(frozen=True, slots=True)
class Denial:
    """A negation: `text[start:end]`, from its first character to the end of what it denies.

    Args:
        scope_start: where the words that it denies begin, light verbs left out.
        scope: those words; never empty.
        heads: where the names begin that it denies: both of 没有高血压和糖尿病.
        maybe: where names begin that it may deny as well, after a blank: 无 高血压 糖尿病.
        is_state: 没, 未, 非 …: being or having is denied; otherwise doing, wanting, being able.
        asks: a question that means the same without the negation (不能吃吗).
    """

    start: int
    scope_start: int
    end: int
    scope: str
    is_state: bool
    asks: bool
    heads: frozenset[int] = frozenset()
    maybe: frozenset[int] = frozenset()

    def covers(self, start: int, end: int) -> bool:
        return self.start <= start and end <= self.end


def denials(text: str, names: Sequence[tuple[int, int]] = ()) -> tuple[Denial, ...]:
    """The negations of a folded text.

    Args:
        names: spans of terms and products: a character within them denies nothing.
    """
    if not _ANY.search(text):
        return ()
    found: list[Denial] = []
    ends = dict(names)
    inside = {place for start, end in names for place in range(start, end)}
    position = 0
    while match := _SCAN.search(text, position):
        position = match.end()
        if match["word"] or match["whether"]:
            continue
        if match.start() in inside:
            continue
        denial = _english(text, match) if match["english"] else _chinese(text, match, ends)
        if denial is not None:
            found.append(denial)
    return tuple(found)


def _chinese(text: str, match: re.Match[str], ends: Mapping[int, int]) -> Denial | None:
    if COMPLEMENT.match(text, match.start() - 1) and match.start() and match.group() == "不":
        return None
    begin = match.end() + (text[match.end() : match.end() + 1] == " ")
    while begin not in ends and (light := _LIGHT.match(text, begin)):
        begin = light.end()
    # A name at the start is denied whole, whatever it holds.
    end = ends.get(begin, begin)
    limit = min(len(text), begin + _REACH)
    if end == begin and (begin >= limit or _NOTHING.match(text, begin)):
        return None
    stop = _STOP.search(text, max(end, begin + 1), limit)
    end = max(end, stop.start() if stop else limit)
    question = _ASKS.match(text, match.end())
    asks = question is not None and not _ABLE.search(question.group(), 2)
    # 没有检测报告吗 asks as well; of a name it is a state.
    asks = asks and (bool(match["act"]) or (end - begin < _REACH and begin not in ends))
    heads, maybe = (frozenset[int](), frozenset[int]()) if asks else _heads(text, begin, ends)
    return Denial(match.start(), begin, end, text[begin:end], bool(match["state"]), asks, heads, maybe)


def _heads(text: str, begin: int, ends: Mapping[int, int]) -> tuple[frozenset[int], frozenset[int]]:
    heads, maybe = {begin}, set[int]()
    place, sure = ends.get(begin), True
    while place is not None and (joint := _JOINT.match(text, place)):
        sure = sure and joint.group() != " "
        (heads if sure else maybe).add(joint.end())
        place = ends.get(joint.end())
    return frozenset(heads), frozenset(maybe)


def _english(text: str, match: re.Match[str]) -> Denial | None:
    begin = match.end() + (text[match.end() : match.end() + 1] in (" ", "-"))
    while light := _LIGHT_ENGLISH.match(text, begin):
        begin = light.end()
    word = _ENGLISH_WORD.match(text, begin)
    if word is None:
        return None
    asks = "'" in match.group() or "’" in match.group()
    asks = asks and bool(_AUXILIARY_FIRST.search(text[max(0, match.start() - 24) : match.start()]))
    return Denial(match.start(), begin, word.end(), word.group(), not asks, asks, frozenset({begin}))


def is_name_denied(text: str, start: int, end: int, by: Sequence[Denial], *, maybe: bool = False) -> bool:
    """Whether the name at `text[start:end]` is denied itself: that of 没怀孕, not that of 不能给孕妇吃.

    Args:
        maybe: whether to count what may be denied as well, and what is denied together with its verb (不开发票).
    """
    before = _last_before(start, by)
    denied = any(start in denial.heads for denial in before)
    denied = denied or (maybe and any(start in denial.maybe or denial.covers(start, end) for denial in before))
    return denied or bool(_EXCEPT.match(text, end))


def is_denied(text: str, start: int, end: int, by: Sequence[Denial]) -> bool:
    """Whether `text[start:end]` is denied by one of these negations or by what follows it."""
    followed = _EXCEPT.match(text, end) or _POOR.match(text, end)
    return bool(followed) or any(denial.covers(start, end) for denial in _last_before(start, by))


def _last_before(start: int, by: Sequence[Denial]) -> Sequence[Denial]:
    """The few negations, in their order, that begin before `start`: earlier ones do not reach it."""
    place = bisect_right(by, start, key=lambda denial: denial.start)
    return by[max(0, place - 3) : place]
