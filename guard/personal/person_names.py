"""People's names before a title (李医生, 陈建国先生, Dr. Smith) or after 我叫 and 姓名.

A surname is one of some 300 characters, most of which are ordinary words as well: 高 is "high", 钱 "money", 周 "week".
jieba's words and their parts of speech tell 高血压医生 and 项目经理 from 高医生.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from guard.personal.words import tagger


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMPOUND_SURNAMES = _words(
    "欧阳 上官 司马 诸葛 皇甫 令狐 慕容 夏侯 尉迟 公孙 独孤 南宫 端木 长孙 宇文 轩辕 司徒 呼延 澹台 申屠"
)
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高郑梁谢宋唐许韩邓冯曹彭曾肖萧田董潘袁蔡蒋"
    "余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付傅方邹熊白孟秦邱侯江尹薛闫"
    "阎段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔汤常温康施牛樊葛邢安齐易乔伍庞颜倪庄聂"
    "章鲁岳翟申欧耿关兰焦俞柳甘祝包宁尚符舒阮柯纪梅童凌毕单裴霍涂成苗谷曲盛冉骆蓝路游"
    "辛靳管柴蒙鲍华喻祁蒲房滕屈饶解牟艾尤穆司古吉冷阳卓简车项麦褚娄戚岑景宫费卜晏封席"
    "瞿卫佟隋荣查卞仇邬丘臧苟门闵郁储池郎芦冼敖匡桂甄湛巩鞠窦楚练习刁詹缪邸"
)
# Those that are words of every kind of sentence: a bare one counts at the start of a clause or after one of _BEFORE.
_ORDINARY = frozenset(
    "高钱方安常于成白万金石车路关包单毛易温江游章童施付齐顾项祝蓝古解查封席门池练习简冷景华阳司房管舒尚宁武龙盛"
    "康辛谷蒙申梅曾余何任莫符费卫"
)
_BEFORE = _words(
    "请问 请 问 找 给 和 跟 与 同 是 的 让 叫 去 见 看 谢谢 感谢 多谢 谢 你好 您好 您 你 联系 咨询 预约 约 挂 对 由 被 "
    "到 为 听 了 过 着 尊敬 亲爱 我 我们 咱们 那位 这位 位 早上好 晚上好 下午好 早 推荐 认识 想找 找到 有 小 老 姓 在 "
    "等 或 或者 以及 还有 因为 把 替 帮 向 经 据 用 说 转告 告诉 通知 麻烦 拜托 复诊 主治 主管 班主任 客户 家长 患者 "
    "病人 医生 老师 大夫 护士 主任 教授 经理"
)
# Surnames that count things: 一张老师的照片, 12周医生说.
_MEASURES = frozenset("张周段任项包车万成毛方章单路门房席顾石金钱")
_COUNTING = frozenset("这那几每上下本多半前后头各某整两数第首末全单双一二三四五六七八九十百千")
_TITLES = (
    "副?主任医师|副?主任护师|主治医师|副?主任|副?教授|副?院长|副?经理|总经理|副?校长|董事长|护士长|护士|医师|药师|技师|"
    "律师|老师傅|老师|医生|大夫|先生(?!产)|女士|小姐(?!姐)|太太|博士(?!伦)|阿姨|叔叔|大爷|大妈|大叔|大姐|大哥|大嫂|"
    "奶奶|爷爷|伯伯|婶婶|(?<!康)师傅|师父|总监|老板|店长|顾问|警官|同学|教练(?!员)|院士|总(?=$|[^一-鿿]|您|你)"
)
# No given names, before a title: 高年资医生, 方主治医师.
_RANKS = _words(
    "主治 主管 主任 值班 年资 资深 客户 产品 项目 销售 部门 大堂 高级 中级 初级 级别 级 外科 内科 儿科 妇科 产科 骨科 "
    "中医 西医 专业 家庭 私人 全科 专科 当班 年轻 男性 女性 水平 学历 质量 好 科 区域 大区 行政 财务 人事 副 总 班"
)
# Nor are these single words: 李的医生, 王和老师.
_NO_GIVEN = frozenset(
    "的了是在与及或不没这那我你他她它们很最个位名每各从被把给叫让去到要想找看问说请见对等就都也还又再只能可将向比和"
    "为于来有跟同吗呢吧啊呀哦您咱谁今男女岁住因会当用先才已该使往经而且但如若则以所之其此何几多少太更挺真另"
)
_NO_NAME_CHARACTERS = frozenset("我你您他她它们了过吗呢吧的这那")
# jieba calls these names.
_NO_NAMES = _words(
    "谢谢 高三 高一 高二 康复 陆军 胡同 白领 华为 戴尔 荣誉 祝福 祝贺 温馨 安静 安慰 雷达 卫星 高峰 高薪 高超 丁香 "
    "石家庄 莫斯科 黄石 常德 古文 史诗 童子 孔子 庄子 孟子 孙子 柴胡 管床 石斛 冷敷 顾客 向阳 温泉 柏林 梅花 林业 "
    "马来 许可 金山 阳光 安康 常州 温州 杭州 江阴 高校 高新区 华丽 方圆 安抚 古建 白银 安保 毛衣 高档 成都 广安 龙岩"
)
_TITLED = re.compile(_TITLES)
_INTRODUCED = re.compile(
    "(?:姓名|收件人|收货人|联系人|(?:我的?|患者|孩子|宝宝)名字)(?:叫做?|是|为)?[ :：]{0,3}|我名?叫做? ?"
)
_ENGLISH = re.compile(
    r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Dr|Prof)(?:\. ?| )"
    r"(?P<name>[A-Z][A-Za-z'’-]{1,24}(?: (?:[A-Z]\. )?[A-Z][a-z'’-]{1,24}){0,2})"
)
# jieba takes it for one word: 老王大哥.
_FAMILIAR = re.compile(f"[老小][{''.join(sorted({*_SURNAMES} - _ORDINARY))}]$")
_HAN_END = re.compile("[一-鿿]{1,14}$")
_HAN_START = re.compile("[一-鿿]{1,8}")

# Of RE2 and re alike: RE2 cannot look around.
_FIRST = "".join(sorted({*_SURNAMES, *(name[0] for name in _COMPOUND_SURNAMES)}))
_PLAIN_TITLES = re.sub(r"\(\?<?[=!].*?\)", "", _TITLES)
PERSON_HINT = (
    f"[{_FIRST}][一-鿿]{{0,3}}(?:{_PLAIN_TITLES})|姓名|名字|收件人|收货人|联系人|我名?叫|(?:Mr|Mrs|Ms|Dr|Prof)[. ]"
)

Span = tuple[int, int]


def find_names(text: str) -> Iterator[Span]:
    """Yield the places of names, without the title or 我叫 around them."""
    spans = [(place - length, place) for place, length in _before_titles(text)]
    spans += [(place, place + length) for place, length in _after_introductions(text)]
    spans += [found.span("name") for found in _ENGLISH.finditer(text)]
    last = 0
    for start, end in sorted(spans):
        if start >= last:
            last = end
            yield start, end


def _before_titles(text: str) -> Iterator[tuple[int, int]]:
    """Yield the place of a title, and how many characters before it are the name."""
    for title in _TITLED.finditer(text):
        place = title.start()
        before = _HAN_END.search(text, max(0, place - 14), place)
        if before is None or not any(_surname(before[0][-length:]) for length in (1, 2, 3, 4)):
            continue
        counted = text[max(0, before.start() - 1) : before.start()].isdigit()
        length = _name_length(before[0], counted, bare_only=title[0] == "总")
        if length:
            yield place, length
        elif _FAMILIAR.search(before[0]):
            yield place, 1


def _name_length(before: str, counted: bool, *, bare_only: bool) -> int:
    """Return how many of the last characters of `before`, which end at a title, are a name; 0 for none.

    Args:
        counted: a digit precedes it.
        bare_only: without given names.
    """
    words = _tagged(before)
    for length in (1,) if bare_only else (4, 3, 2, 1):
        name = _last(words, length)
        surname = _surname(before[-length:])
        if not name or not surname or length - len(surname) > 2 or not _is_name(name, surname):
            continue
        word, kind = words[-len(name) - 1] if len(words) > len(name) else ("", "")
        is_counted = kind == "m" or word[-1:] in _COUNTING if word else counted
        is_spoken_of = not word or word in _BEFORE
        if not (surname in _MEASURES and is_counted) and (length > 2 or surname not in _ORDINARY or is_spoken_of):
            return length
    return 0


def _tagged(text: str) -> list[tuple[str, str]]:
    """Return the words of `text`, each with its part of speech as jieba abbreviates it: nr is a person's name."""
    return [(pair.word, pair.flag) for pair in tagger().lcut(text, HMM=False)]


def _last(words: list[tuple[str, str]], length: int) -> list[tuple[str, str]]:
    """Return the last of `words` that are `length` characters together; none if that cuts a word."""
    for count in range(1, len(words) + 1):
        size = sum(len(word) for word, _ in words[-count:])
        if size >= length:
            return words[-count:] if size == length else []
    return []


def _surname(name: str) -> str:
    if name[:2] in _COMPOUND_SURNAMES:
        return name[:2]
    return name[0] if name and name[0] in _SURNAMES else ""


def _is_name(words: list[tuple[str, str]], surname: str) -> bool:
    """Return whether `words`, which begin with a surname, can be a whole name."""
    whole = "".join(word for word, _ in words)
    first, kind = words[0]
    if whole == surname:
        return True
    if whole in _NO_NAMES:
        return False
    if len(words) == 1:
        return kind.startswith("nr") and not set(whole) & _NO_NAME_CHARACTERS
    given = [word for word, _ in words[1:]]
    if {*given, "".join(given)} & (_RANKS | _NO_GIVEN):
        return False
    if first != surname:  # 欧阳修 | 文
        return len(words) == 2 and kind.startswith("nr") and first not in _NO_NAMES
    # As a word of its own, a given name is a noun: 建国, not 看过.
    word, kind = words[1]
    return len(given) > 1 or len(word) == 1 or word == "某某" or kind == "vn" or kind[0] not in "vrucpdmqy"


def _after_introductions(text: str) -> Iterator[tuple[int, int]]:
    """Yield the place of a name after 我叫 or 姓名, and its length."""
    for introduction in _INTRODUCED.finditer(text):
        place = introduction.end()
        after = _HAN_START.match(text, place)
        surname = _surname(after[0]) if after else ""
        if after and surname and not _TITLED.match(text, place + len(surname)):
            length = _introduced_length(after[0], surname)
            if length:
                yield place, length


def _introduced_length(after: str, surname: str) -> int:
    """Return how many of the first characters of `after` are a name with 1–2 given characters; 0 for none."""
    words = _tagged(after)
    best, taken = 0, 0
    for count in range(1, len(words) + 1):
        taken += len(words[count - 1][0])
        if taken - len(surname) > 2:
            break
        goes_on = count > 1 and len(words[count - 1][0]) > 1 and words[count - 1][1][0] in "trdcpuv"  # 李明 | 今年
        if taken > len(surname) and _is_name(words[:count], surname) and not goes_on:
            best = taken
    return best
