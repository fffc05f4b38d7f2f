"""Chinese postal addresses in running text: where somebody lives, down to the number of a house or a flat.

Found from the end: a number with 号, 栋, 单元, 室 …, then back over the road, the estate and the districts before it. A
place alone (北京市, 上海的店) is nobody's address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from guard.personal.words import segmenter

_DIGITS = "[零〇一二两三四五六七八九十百]"
_NUMBER = rf"(?:[A-Za-z甲乙丙丁]?[0-9]{{1,5}}(?:[-—之][0-9]{{1,4}}){{0,2}}[A-Za-z]?|{_DIGITS}{{1,4}}|[A-Za-z])"
# 3室2厅 is a flat's size, 2号线 a train.
_KIND_OF_DOOR = "号楼|号院|号(?![线码文令柜机])|栋|幢|座|单元|弄|(?:室|房)(?![一二两三0-9]厅)|户|组|舍"
_DOOR = rf"{_NUMBER}(?:{_KIND_OF_DOOR}|[层楼])"
_BARE_DOOR = "(?:[ -]?[0-9]{2,4}(?![0-9]|-[0-9]))?"  # 3单元 | 501
_DOORS = re.compile(rf"{_DOOR}(?:[ ,，-]?{_DOOR}){{0,6}}{_BARE_DOOR}(?:[室房])?")
_ESTATES = "小区|社区|花园|公寓|大厦|广场|家园|新村|嘉园|公馆|别墅|山庄|大院|雅苑|苑|宿舍|家属院"
_AREAS = "自治区|自治州|自治县|开发区|新区|街道|省|市|州|盟|区|县|旗|镇|乡|村|屯"
_WAYS = "大街|大道|胡同|路|街|巷|弄"
_KIND = f"(?:{_AREAS}|{_WAYS}|{_ESTATES})"
_KIND_CHARACTERS = "省市区县旗镇乡村屯州路街巷弄"
# 中关村大街 and 三里屯路 are one level each: what follows directly belongs to the name.
_LEVEL = re.compile(
    rf"(?P<name>.(?:[^{_KIND_CHARACTERS}]|[{_KIND_CHARACTERS}](?={_KIND})){{0,9}}?)"
    rf"(?:(?P<area>{_AREAS})|(?P<way>{_WAYS})|(?P<estate>{_ESTATES}))(?!{_KIND})(?:[东西南北中一二三四五六七八九]段)?"
)
_STOPS = "我你您他她它们了是在到去住往给寄送跟或这那哪请呢吗吧啊叫说的把被让对与及得着买"
# 103号 | 万达公寓 | 2栋: an address goes on.
_ON = re.compile(rf"[ ,，]?(?:(?![{_STOPS}])[一-鿿A-Za-z]){{2,10}}?[ ,，]?(?={_DOOR})")
_BEFORE = re.compile("[一-鿿A-Za-z0-9 -]{1,50}$")
# What separates a sentence from the address in it.
_SENTENCE = re.compile(rf".*(?:位于|坐落|地址|住址|住所|快递|发货|[{_STOPS}])[ :：]?")
_BUILDING = frozenset(("栋", "幢", "座", "单元", "室", "房", "号楼", "号院", "户", "舍"))
_INSTITUTION = re.compile("医院|门诊|病区|病房|诊室|科室|急诊|地铁")
_PLACE_END = re.compile("[一-鿿][里园沿地道条城府庭坊湾厂庄营桥]$")
_NO_WAY = re.compile("(?:公|铁|线|电|网|思|出|套|一|走|道|尿|通|问|带|马|逛|上)(?:路|街)$")

ADDRESS_HINT = f"(?:[0-9A-Za-z]|{_DIGITS})(?:号|栋|幢|座|单元|弄|室|房|户|组)"

Span = tuple[int, int]


def find_addresses(text: str) -> Iterator[Span]:
    """Yield the places of addresses: at least a number and what it is a number of."""
    last, place = 0, 0
    while found := _DOORS.search(text, place):
        place = found.end()
        start = _start(text, last, found)
        if start is None:
            continue
        while (on := _ON.match(text, place)) and (more := _DOORS.match(text, on.end())) and _kinds(more[0]) & _BUILDING:
            place = more.end()
        last = place
        yield start, place


def _start(text: str, earliest: int, doors: re.Match[str]) -> int | None:
    """Return where the address that ends in `doors` begins; None if they end none."""
    before = _BEFORE.search(text, max(earliest, doors.start() - 50), doors.start())
    places = before[0] if before else ""
    places = places[_end(_SENTENCE.match(places)) :]
    first = doors.start() - len(places)
    levels = list(_LEVEL.finditer(places))
    rest = places[_end(levels[-1]) if levels else 0 :].strip()
    kinds = _kinds(doors[0])
    if _INSTITUTION.search(places) or not kinds:
        return None
    if not levels:
        flat = "单元" in kinds or bool(kinds & {"栋", "幢", "号楼", "座"} and kinds & {"室", "房"})
        return doors.start() if flat and len(_separate(doors[0])) > 1 else None
    if not _is_address(levels, rest, kinds, doors[0]):
        return None
    return first + levels[0].start() + (0 if levels[0]["estate"] else _surplus(levels[0][0], levels[0]["name"]))


def _end(found: re.Match[str] | None) -> int:
    return found.end() if found else 0


def _kinds(doors: str) -> set[str]:
    return set(re.findall(_KIND_OF_DOOR, doors))


def _separate(doors: str) -> list[str]:
    return re.findall(f"{_DIGITS}+|[0-9A-Za-z-]+", doors)


def _is_address(levels: list[re.Match[str]], rest: str, kinds: set[str], doors: str) -> bool:
    last = levels[-1]
    building = bool(kinds & _BUILDING)
    if rest:  # a building by its name: 朝阳区建国路建外SOHO A座1203室
        return len(rest) <= 12 and ((building and len(levels) > 1) or bool(_PLACE_END.search(rest)))
    if last["way"]:
        return len(levels) > 1 or (len(last["name"]) > 1 and not _NO_WAY.search(last[0]))
    if last["estate"]:
        return building or len(levels) > 1
    if last["area"] in ("镇", "乡", "村", "屯", "街道"):
        return len(levels) > 1 or len(_separate(doors)) > 1
    return len(levels) > 1 and building


def _surplus(level: str, name: str) -> int:
    """Return how many characters at the start of `level` belong to the sentence: of 货发广州市 the place is 广州市."""
    kind = len(level) - len(name)
    taken, unknown = 0, True
    for word in reversed(segmenter().lcut(level, HMM=False)):
        # 知东 is less than a name: what precedes 育知东路 belongs to it. So do all characters of a name jieba lacks.
        named = len(re.sub("[东西南北中]", "", level[len(level) - taken : len(level) - kind])) >= 2
        if named and not (unknown and len(word) == 1):
            break
        taken += len(word)
        unknown = unknown and len(word) == 1
    return len(level) - taken
