"""Patterns of numbers and names that point to a person: e-mail, WeChat, QQ, identity card, bank card, phone, plate.

Each finder yields places (start, end) in a text, ascending and apart. Digits and letters are half-width, as
`normal_form` leaves them. No pattern looks further than a bounded number of characters, so that none is
slow on hostile text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from phonenumbers import PhoneNumberMatcher
from stdnum import ean, luhn, numdb
from stdnum.cn import ric

Span = tuple[int, int]

# Parts of patterns that Python's re and Arrow's RE2 read alike.
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
EMAIL_HINT = "[@＠]"
WECHAT_HINT = r"[微薇威Vv]信|[Ww][Ee][Cc][Hh][Aa][Tt]|[WwVv][Xx]|[加+][Vv]|加我[Vv]"
QQ_HINT = r"[Qq][Qq]|扣扣|球球|企鹅"
# Ten digits in one number, or a local number that says what it is.
PHONE_HINT = r"[0-9](?:[ ()（）./~‐-―－-]{0,3}[0-9]){9}|(?:电话|座机|固话|[Tt][Ee][Ll]).{0,6}[0-9]{3}"
CARD_HINT = r"[0-9](?:[ -]?[0-9]){12}"
PLATE_HINT = f"[{PROVINCES}][A-Za-z]"

_EMAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}[@＠](?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}"
    r"(?!(?:png|jpe?g|gif|webp|svg)(?![A-Za-z]))[A-Za-z]{2,24}"
)
_MOBILE = r"(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9])"
_TO = r"[ :：=是为()（）“\"]{0,4}"  # between what a number is and the number
_WECHAT = re.compile(
    r"(?:[微薇威Vv]信|(?<![A-Za-z0-9])(?:[Ww][Ee][Cc][Hh][Aa][Tt]|[WwVv][Xx])|(?:[加+]|加我)[Vv])"
    rf"(?P<says>(?:号码?|账号|帐号| ?(?:ID|Id|id)(?![A-Za-z]))?{_TO})"
    r"(?:(?P<name>[A-Za-z][A-Za-z0-9_-]{5,19}(?![A-Za-z0-9_@＠/-]|\.[A-Za-z]))"
    rf"|(?P<mobile>{_MOBILE})|(?P<number>[1-9][0-9]{{4,10}}(?![0-9])))"
)
_QQ = re.compile(
    r"(?:(?<![A-Za-z])[Qq]{2}|扣扣|球球|企鹅(?=[号:：]))(?:号码?|群号?|账号|帐号)?"
    rf"{_TO}(?P<number>[1-9][0-9]{{4,10}})(?![0-9@＠元块万]|\.[0-9])"
)
# An order's number may well look like a phone or card number.
_OTHER_NUMBER = re.compile(
    r"(?:单号|订单|编号|货号|批号|批次|条形?码|序列号|型号|款号|流水号?|发票|合同|工单|文号|国药准字|SKU|sku|SN|S/N|ISBN)"
    r"(?:号码?)?[ :：是为#]{0,4}[A-Za-z]{0,4}$"
)
_DIGITS = re.compile("[0-9]+")
_IDENTITY = re.compile(r"(?<![0-9])[1-8][0-9]{5}[ -]?[0-9]{4}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{3}[0-9Xx](?![0-9])")
_OLD_IDENTITY = re.compile(r"(?<![0-9A-Za-z])[1-8][0-9]{5}[ -]?[0-9]{6}[ -]?[0-9]{3}(?![0-9A-Za-z])")
_CALLED_IDENTITY = re.compile(r"身份证(?:件?号码?)?[ :：是为]{0,4}$")
_CALLED_BANK_CARD = re.compile(r"(?:银行|信用|储蓄|借记)卡(?:号码?)?[ :：是为]{0,4}$")
# What the library takes for part of a longer code: letters next to a mobile number (…5678vx同号), a switchboard's
# extension.
_CHINESE_PHONE = re.compile(
    rf"(?:(?<![0-9A-Za-z])|(?<=[Tt][Ee][Ll]))(?<![0-9]\.){_MOBILE}(?![A-PR-UX-Za-pr-ux-z])"
    r"|(?<![0-9])0(?:10|2[0-9]|[3-9][0-9]{2})-[2-9][0-9]{6,7}(?=-[0-9]{1,5}(?![0-9]))"
)
_EXTENSION = re.compile(r" ?(?:转|分机|-)(?:分机|号)? ?[0-9]{1,6}(?![0-9])")
_LOCAL = r"(?P<number>[2-8][0-9]{2,3}[ -]?[0-9]{4})(?![0-9元块万]|[.-][0-9])"
_LOCAL_PHONE = re.compile(rf"(?:电话|座机|固话|[Tt][Ee][Ll])(?:号码?)?[. :：是为]{{0,4}}{_LOCAL}")
_OR_LOCAL_PHONE = re.compile(f"[,，、/或 ]{{1,2}}{_LOCAL}")
_PLATE = re.compile(
    rf"[{PROVINCES}][A-HJ-NP-Z][ ·•・-]?(?P<serial>[A-HJ-NP-Z0-9]{{4}}[A-HJ-NP-Z0-9挂学警港澳]"
    r"|[A-HJK][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[A-HJK])(?![A-Z0-9])",
    re.IGNORECASE,
)


def find_emails(text: str) -> Iterator[Span]:
    return (found.span() for found in _EMAIL.finditer(text))


def find_wechat(text: str) -> Iterator[Span]:
    """Yield what follows 微信, WeChat, wx, vx, V信 or 加V. A plain word counts only where it is called an account:
    微信login is none."""
    for found in _WECHAT.finditer(text):
        says = found["says"].strip(' "“()（）')
        if found["mobile"] or (found["number"] and "号" in says):
            yield found.span("mobile" if found["mobile"] else "number")
        elif found["name"] and (says or re.search("[0-9_-]", found["name"])):
            yield found.span("name")


def find_qq(text: str) -> Iterator[Span]:
    return (found.span("number") for found in _QQ.finditer(text))


def find_identity_cards(text: str) -> Iterator[Span]:
    """Yield 18-digit numbers with their check digit, birth date and province, and 15-digit ones with date and county.

    One that is called 身份证 may have its check digit wrong: a slip of the keyboard.
    """
    spans = [found.span() for found in _IDENTITY.finditer(text) if _is_identity(text, found)]
    spans += [found.span() for found in _OLD_IDENTITY.finditer(text) if _is_old_identity(text, found)]
    yield from sorted(spans)


def _is_identity(text: str, found: re.Match[str]) -> bool:
    number = re.sub("[ -]", "", found[0]).upper()
    province = numdb.get("cn/loc").info(number[:2])[0][1]
    if not province or not _is_date(number[6:10], number[10:12], number[12:14]):
        return False
    return ric.calc_check_digit(number) == number[-1] or _introduced(_CALLED_IDENTITY, text, found.start())


def _is_old_identity(text: str, found: re.Match[str]) -> bool:
    number = re.sub("[ -]", "", found[0])
    area = numdb.get("cn/loc").info(number[:6])
    return (
        len(area) == 2
        and bool(area[1][1])
        and _is_date(f"19{number[6:8]}", number[8:10], number[10:12])
        and not _introduced(_OTHER_NUMBER, text, found.start())
    )


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        return 1850 < date(int(year), int(month), int(day)).year < 2100
    except ValueError:
        return False


def find_bank_cards(text: str) -> Iterator[Span]:
    """Yield numbers of 13 to 19 digits with an issuer's first digits and Luhn's check digit, which one that is called
    银行卡 may have wrong. Groups of digits may be parted by a space or hyphen."""
    groups = [found.span() for found in _DIGITS.finditer(text)]
    place = 0
    while place < len(groups):
        start, end = groups[place]
        following = place + 1
        ends = [end]
        while following < len(groups) and groups[following][0] == end + 1 and text[end] in " -" and end - start < 24:
            end = groups[following][1]
            ends.append(end)
            following += 1
        card = next((end for end in reversed(ends) if _is_bank_card(text, start, end)), None)
        if card is None:
            place += 1
        else:
            yield start, card
            place += ends.index(card) + 1


def _is_bank_card(text: str, start: int, end: int) -> bool:
    groups = re.split("[ -]", text[start:end])
    number = "".join(groups)
    if not 13 <= len(number) <= 19 or not _has_issuer(number) or any(len(group) < 3 for group in groups[:-1]):
        return False
    if text[start - 1 : start].isascii() and text[start - 1 : start].isalpha():
        return False
    identity = _IDENTITY.match(text, start)
    if identity and _is_identity(text, identity):
        return False
    if _introduced(_CALLED_BANK_CARD, text, start):
        return True
    return luhn.is_valid(number) and not ean.is_valid(number) and not _introduced(_OTHER_NUMBER, text, start)


def _has_issuer(number: str) -> bool:
    """Return whether the first digits are those of a card issuer (ISO/IEC 7812) whose numbers are that long."""
    length, two, three, four = len(number), int(number[:2]), int(number[:3]), int(number[:4])
    if two in (60, 62, 65) or 644 <= three <= 649 or four in (9558, 9559):  # UnionPay, Discover, ICBC, ABC
        return length >= 16
    if number[0] == "4":  # Visa
        return length in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720 or two == 35:  # Mastercard, JCB
        return length == 16
    if two in (34, 37):  # American Express
        return length == 15
    return length == 14 and (two in (36, 38) or 300 <= three <= 305)  # Diners Club


def find_phones(text: str) -> Iterator[Span]:
    """Yield Chinese mobile, landline and 400/800 numbers, any other one with its + and country, and local ones after
    电话."""
    spans = [(match.start, match.end) for match in PhoneNumberMatcher(text, "CN") if _is_written_out(match.raw_string)]
    spans += [found.span() for found in _CHINESE_PHONE.finditer(text)]
    spans += [found.span("number") for found in _LOCAL_PHONE.finditer(text)]
    last = 0
    for start, end in sorted(spans):
        if start >= last and not _introduced(_OTHER_NUMBER, text, start):
            extension = _EXTENSION.match(text, end)
            last = extension.end() if extension else end
            yield start, last
            while another := _OR_LOCAL_PHONE.match(text, last):
                last = another.end()
                yield another.span("number")


def _is_written_out(number: str) -> bool:
    """Return whether it is more than ten or eleven digits: the library takes an area code without its 0, and a
    decimal."""
    if re.match(r"[0-9]{1,2}\.[0-9]+$", number):
        return False
    return number.startswith("+") or bool(re.match("0|86|1[3-9].{9}$|[48]00", re.sub("[^0-9]", "", number)))


def find_plates(text: str) -> Iterator[Span]:
    """Yield plates: province, letter and five characters (six for a new-energy car), three of them digits at least;
    no I, no O."""
    for found in _PLATE.finditer(text):
        if len(re.findall("[0-9]", found["serial"])) >= 3:
            yield found.span()


def _introduced(words: re.Pattern[str], text: str, start: int) -> bool:
    """Return whether `words` lead up to the place `start`."""
    return words.search(text, max(0, start - 16), start) is not None
