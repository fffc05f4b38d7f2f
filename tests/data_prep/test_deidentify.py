"""De-identification: what is masked, what survives, and that hostile text is neither slow nor masked differently twice.

Numbers are invented; where a check digit belongs to them it is right unless the case says otherwise.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import get_args

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.cn import ric

from data_prep.text.deidentify import deidentify_column, deidentify_text
from reward.settings.data import DeidentifySettings, PersonalKind

_ALL = DeidentifySettings()

_MASKED = {
    "phone": [
        ("我的电话13812345678", "我的电话[电话]"),
        ("手机号:138 1234 5678谢谢", "手机号:[电话]谢谢"),
        ("打199-1234-5678找我", "打[电话]找我"),
        ("+86 13812345678", "[电话]"),
        ("008613812345678", "[电话]"),
        ("86-13812345678", "[电话]"),
        ("tel13812345678", "tel[电话]"),
        ("13812345678vx同号", "[电话]vx同号"),
        ("13812345678、13912345679都行", "[电话]、[电话]都行"),
        ("座机010-62345678", "座机[电话]"),
        ("(0755) 26012345", "[电话]"),
        ("0571-88888888转801", "[电话]"),
        ("010-62345678-801", "[电话]"),
        ("02162345678打过去", "[电话]打过去"),
        ("客服400-820-8820", "客服[电话]"),
        ("4008208820", "[电话]"),
        ("800-820-8820", "[电话]"),
        ("电话：6234-5678", "电话：[电话]"),
        ("联系电话62345678", "联系电话[电话]"),
        ("电话是010-66153562,66174043", "电话是[电话],[电话]"),
        ("Call +1 425 882 8080 please", "Call [电话] please"),
    ],
    "id_card": [
        ("身份证110101199003074514", "身份证[身份证]"),
        ("11010119900307002X", "[身份证]"),
        ("号码11010119900307002x，查一下", "号码[身份证]，查一下"),
        ("110101 19900307 4514", "[身份证]"),
        ("110112198503074515", "[身份证]"),  # the district had another code in the year of birth
        ("编号310115200412310021", "编号[身份证]"),
        ("510107197708153320的档案", "[身份证]的档案"),
        ("老身份证440305900307451", "老身份证[身份证]"),
        ("身份证号：110101199003074515", "身份证号：[身份证]"),  # check digit wrong, but that is what it is called
    ],
    "bank_card": [
        ("卡号6222021234567890128", "卡号[银行卡]"),
        ("6222 0212 3456 7890 128", "[银行卡]"),
        ("打到6217-0000-1234-5678-907", "打到[银行卡]"),
        ("农行6228480012345678903", "农行[银行卡]"),
        ("62122600001234566", "[银行卡]"),
        ("Visa 4111111111111111", "Visa [银行卡]"),
        ("4111 1111 1111 1111 13812345678", "[银行卡] [电话]"),
        ("5555555555554444元", "[银行卡]元"),
        ("378282246310005", "[银行卡]"),
        ("3530111333300000", "[银行卡]"),
        ("30569309025904", "[银行卡]"),
        ("9558800012345678903", "[银行卡]"),
        ("银行卡号6222021234567890123", "银行卡号[银行卡]"),  # check digit wrong, but that is what it is called
    ],
    "email": [
        ("邮箱zhang.san@163.com，谢谢", "邮箱[邮箱]，谢谢"),
        ("12345678@qq.com", "[邮箱]"),
        ("发我li_ming+a@mail.corp.com.cn吧", "发我[邮箱]吧"),
        ("user＠outlook.com", "[邮箱]"),
        ("Contact: John.Smith@uni.edu.", "Contact: [邮箱]."),
    ],
    "wechat": [
        ("加我微信abc_12345", "加我微信[微信]"),
        ("微信号：zhangsan", "微信号：[微信]"),
        ("微信13812345678", "微信[微信]"),
        ("微信是wxid-abc123", "微信是[微信]"),
        ("wx:liming88", "wx:[微信]"),
        ("vx liming2020", "vx [微信]"),
        ("加V13812345678", "加V[微信]"),
        ("V信:abcdef", "V信:[微信]"),
        ("WeChat ID: johnsmith", "WeChat ID: [微信]"),
        ("微信号是12345678", "微信号是[微信]"),
        ("微信(abc12345)", "微信([微信])"),
    ],
    "qq": [
        ("QQ12345678", "QQ[QQ]"),
        ("qq：123456789", "qq：[QQ]"),
        ("QQ号是 1234567", "QQ号是 [QQ]"),
        ("QQ群 123456", "QQ群 [QQ]"),
        ("扣扣12345678加我", "扣扣[QQ]加我"),
        ("企鹅号12345678", "企鹅号[QQ]"),
    ],
    "address": [
        ("我住在北京市海淀区中关村大街1号", "我住在[地址]"),
        ("地址：浙江省杭州市西湖区文三路478号华星时代广场A座1203室", "地址：[地址]"),
        ("寄到上海市浦东新区陆家嘴环路1000号吧", "寄到[地址]吧"),
        ("我家住幸福小区3栋2单元501室", "我家住[地址]"),
        ("3栋2单元501", "[地址]"),
        ("把货发广州市天河区体育西路103号", "把货发[地址]"),
        ("南京西路1266号恒隆广场3201室", "[地址]"),
        ("河北省保定市清苑县张登镇李家村3组25号", "[地址]"),
        ("成都市武侯区人民南路四段11号", "[地址]"),
        ("请寄到 北京市 海淀区 中关村大街 1号 谢谢", "请寄到 [地址] 谢谢"),
        ("我在人民路123号等", "我在[地址]等"),
        ("青岛市市北区延安路甲10号", "[地址]"),
        ("朝阳区建国路建外SOHO A座1203室", "[地址]"),
        ("上海市徐汇区漕溪北路88弄6号1102室", "[地址]"),
        ("南京市鼓楼区汉口路22号南京大学6舍301室", "[地址]"),
        ("万科城市花园12幢3单元402室", "[地址]"),
    ],
    "licence_plate": [
        ("车牌京A12345", "车牌[车牌]"),
        ("粤B·DF1234", "[车牌]"),
        ("沪AD12345停在门口", "[车牌]停在门口"),
        ("浙A12345D", "[车牌]"),
        ("川A1234学", "[车牌]"),
        ("苏a12345", "[车牌]"),
        ("湘B-12345", "[车牌]"),
    ],
    "person_title": [
        ("李医生", "[姓名]医生"),
        ("王女士您好", "[姓名]女士您好"),
        ("张小姐", "[姓名]小姐"),
        ("陈建国先生", "[姓名]先生"),
        ("请问李医生在吗", "请问[姓名]医生在吗"),
        ("我找王小明老师", "我找[姓名]老师"),
        ("欧阳医生", "[姓名]医生"),
        ("司马光先生", "[姓名]先生"),
        ("谢谢陈医生", "谢谢[姓名]医生"),
        ("找高医生看病", "找[姓名]医生看病"),
        ("省人民医院的张德胜主任医师", "省人民医院的[姓名]主任医师"),
        ("挂的是周文博教授的号", "挂的是[姓名]教授的号"),
        ("王总，您好", "[姓名]总，您好"),
        ("李副主任", "[姓名]副主任"),
        ("李和平医生", "[姓名]医生"),
        ("吴老师好", "[姓名]老师好"),
        ("赵大爷和刘阿姨", "[姓名]大爷和[姓名]阿姨"),
        ("王某某先生", "[姓名]先生"),
        ("邻居老王大哥", "邻居老[姓名]大哥"),
        ("找小王医生", "找小[姓名]医生"),
        ("李小龙先生和陈小高医生", "[姓名]先生和[姓名]医生"),
        ("王医生和李医生都说", "[姓名]医生和[姓名]医生都说"),
        ("我叫李明今年30岁", "我叫[姓名]今年30岁"),
        ("我叫王小明，来自北京", "我叫[姓名]，来自北京"),
        ("姓名：张三 男", "姓名：[姓名] 男"),
        ("姓名:欧阳娜娜", "姓名:[姓名]"),
        ("收件人：刘德华", "收件人：[姓名]"),
        ("Mr. John A. Smith asked", "Mr. [姓名] asked"),
        ("see Dr. Li about it", "see Dr. [姓名] about it"),
        ("Ms Wang", "Ms [姓名]"),
    ],
}

_SURVIVES = {
    "numbers that are none of these": [
        "条形码6901234567892",
        "商品4006381333931",
        "商品4000000633525",  # right as a barcode and as a card number
        "批号20230401",
        "批号 20230401138",
        "生产日期2023-04-01 12:30:00",
        "每天1800mg",
        "血压150/95，心率72",
        "价格400-500元",
        "门票100-150元，时间09:00-21:00",
        "1993-1996年",
        "时间戳1680000000",
        "编码1062345678",  # ten digits, like a number of Beijing without its 0
        "2023040112345678",
        "订单号13812345678",
        "运单号：4111111111111111",
        "SN13812345678",
        "国药准字Z20063225",
        "型号6222021234567890128",
        "110101199003074515",  # identity number with a wrong check digit
        "110101199013074514",  # of the 13th month
        "990101199003074514",  # of no province
        "990305900307451",  # of no county, old style
        "440305901307451",  # of the 13th month, old style
        "6222021234567890123",  # card number with a wrong check digit
        "1234567890123452",  # right check digit, no issuer
        "0.13812345678",
        "ISBN 978-7-115-42802-8",
        "3.1415926535897",
        "电话费12345678",
        "拨打12345、110或者10086",
    ],
    "words with @, 微信, QQ": [
        "图标icon@2x.png",
        "@张三 看看",
        "a@b",
        "用微信小程序",
        "微信wechat支付",
        "微信 login failed",
        "WeChat account number",
        "微信公众号",
        "微信支付12345元",
        "维生素VX1234",
        "QQ2023版",
        "QQ音乐",
        "加QQ 12345元",
        "企鹅12345只",
    ],
    "places": [
        "北京市",
        "上海的店",
        "北京市海淀区",
        "浙江省杭州市西湖区文三路",
        "地铁2号线",
        "坐5路公交车",
        "3号楼在哪",
        "门诊5楼3号诊室",
        "内科病区5室",
        "北京协和医院3号楼",
        "三室两厅的房子",
        "我家小区3室2厅",
        "6月1号",
        "12号去北京市",
        "北京市海淀区15号下雨",
        "高速公路3号出口",
        "走路1号",
        "县5号文件",
        "一组5次",
        "左心室肥大",
    ],
    "plates": ["京A1234I", "京A123456", "京AO1234", "新COVID19", "北京A座", "川贝B12"],
    "people": [
        "五个医生",
        "家庭医生",
        "张家界",
        "老师好",
        "王老吉",
        "高血压",
        "钙片",
        "任何医生",
        "对方医生",
        "语文老师",
        "高中老师",
        "项目经理",
        "客户经理",
        "许多医生",
        "石家庄医生",
        "江苏老师",
        "高年资医生",
        "周末医生上班吗",
        "周一医生在吗",
        "两周医生让复查",
        "孕12周医生说",
        "一张老师的照片",
        "由于医生说",
        "多少钱医生",
        "谢谢医生",
        "祝您医生",
        "以前曾看过医生",
        "康师傅方便面",
        "血压高医生说",
        "血糖有点高医生",
        "康复医生",
        "有时医生",
        "如何医生",
        "马上医生",
        "丁香医生",
        "主治医生",
        "处方医生",
        "向医生咨询",
        "连医生都说",
        "王总是说",
        "我叫外卖",
        "我叫了车",
        "帮我叫下车",
        "姓名和电话",
        "姓名：",
        "东方药师",
        "博士伦隐形眼镜",
        "Doctor who",
        "MS Windows",
        "Mr. and co",
        "drive to Smith",
    ],
}


def _mask(text: str, settings: DeidentifySettings = _ALL) -> str:
    return deidentify_text(text, settings)[0]


@pytest.mark.parametrize(
    ("kind", "text", "masked"), [(kind, *case) for kind, cases in _MASKED.items() for case in cases]
)
def test_personal_data_is_masked(kind: PersonalKind, text: str, masked: str) -> None:
    clean, found = deidentify_text(text, _ALL)
    assert clean == masked
    assert found[kind] >= 1
    assert _mask(f"你好。{text}") == f"你好。{masked}"


@pytest.mark.parametrize("text", [text for texts in _SURVIVES.values() for text in texts])
def test_what_only_looks_like_it_survives(text: str) -> None:
    assert deidentify_text(text, _ALL) == (text, Counter())


def test_there_are_cases_of_every_kind() -> None:
    assert set(_MASKED) == set(get_args(PersonalKind))


@pytest.mark.parametrize("kind", get_args(PersonalKind))
def test_only_the_kinds_asked_for_are_masked(kind: PersonalKind) -> None:
    only = DeidentifySettings(kinds=(kind,))
    others = DeidentifySettings(kinds=tuple(k for k in get_args(PersonalKind) if k != kind))
    for text, _ in _MASKED[kind]:
        assert set(deidentify_text(text, only)[1]) == {kind}
        assert kind not in deidentify_text(text, others)[1]
    column = pa.array([text for text, _ in _MASKED[kind]])
    assert deidentify_column(column, DeidentifySettings(kinds=()))[0].equals(column)


def test_an_identity_number_is_no_card_where_identity_numbers_stay() -> None:
    numbers = (f"620102{1950 + n // 300}0101{n % 300:03}" for n in range(3000))
    identity = next(n for n in (n + ric.calc_check_digit(n + "0") for n in numbers) if n.isdigit() and luhn.is_valid(n))
    assert _mask(identity) == "[身份证]"
    assert _mask(identity, DeidentifySettings(kinds=("bank_card", "phone"))) == identity


@pytest.mark.parametrize(
    ("kept", "text", "masked"),
    [
        ("400-820-8820", "打400-820-8820或13812345678", "打400-820-8820或[电话]"),
        ("李医生", "李医生牙膏和王医生", "李医生牙膏和[姓名]医生"),
        ("中关村大街1号", "店在中关村大街1号", "店在中关村大街1号"),
        ("中关村大街1号", "住北京市海淀区中关村大街1号院2单元", "住[地址]"),  # only a part of it is the shop's
        ("ＡＢ13812345678", "货号在AB13812345678里", "货号在AB13812345678里"),
        ("", "13812345678", "[电话]"),
    ],
)
def test_a_text_to_keep_is_kept(kept: str, text: str, masked: str) -> None:
    assert _mask(text, DeidentifySettings(keep=(kept, "别的"))) == masked


def test_every_place_is_counted_by_kind() -> None:
    text = "李医生，我是王女士，电话13812345678或13912345678，邮箱a@qq.com，微信abc_12345"
    clean, found = deidentify_text(text, _ALL)
    assert clean == "[姓名]医生，我是[姓名]女士，电话[电话]或[电话]，邮箱[邮箱]，微信[微信]"
    assert found == Counter(person_title=2, phone=2, email=1, wechat=1)


def test_a_column_counts_and_masks_like_its_texts() -> None:
    column = pa.array(["x", "李医生", None, "", "电话13812345678，李医生", "糖尿病"])
    clean, found = deidentify_column(column.slice(1), _ALL)
    assert clean.to_pylist() == ["[姓名]医生", None, "", "电话[电话]，[姓名]医生", "糖尿病"]
    assert found == Counter(person_title=2, phone=1)
    for kind in (pa.string(), pa.large_string()):
        assert deidentify_column(pa.array([], kind), _ALL) == (pa.array([], kind), Counter())
        assert deidentify_column(pa.array(["王女士"], kind), _ALL)[0].type == kind


# Pieces of personal data, so that most texts hold something or nearly do.
_FRAGMENTS = """
    微信 QQ qq vx 加V 电话 身份证 银行卡 订单号 姓名 我叫 联系人： 李 王 高 张三 欧阳 医生 老师 先生 总 Dr. Mr Smith
    北京市 海淀区 中关村 大街 小区 路 号 1号 3栋 单元 室 甲 京 A 京A 12345 138 1234 5678 13812345678 62 4 86 +86
    @ a@b.cn .com [电话] [姓名] [ ] X x - . ： ( ) 元 年 的 ， 。 转 0 010 abc abcdef 1
"""
_PIECES = st.sampled_from(
    [text for cases in _MASKED.values() for text, _ in cases]
    + [text for texts in _SURVIVES.values() for text in texts]
    + [*_FRAGMENTS.split(), " ", "\n"]
)
_TEXTS = st.one_of(
    st.lists(_PIECES, max_size=8).map("".join),
    st.text(alphabet="0123456789 -+@.aVxX微信QQ号电话省市区路栋室李王高医生总姓名叫京A[]", max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)


@settings(max_examples=600, deadline=None)
@given(_TEXTS)
def test_masking_twice_finds_nothing_more(text: str) -> None:
    clean, _ = deidentify_text(text, _ALL)
    assert deidentify_text(clean, _ALL) == (clean, Counter())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.none(), _TEXTS), max_size=6),
    st.sets(st.sampled_from(get_args(PersonalKind))),
    st.lists(_PIECES, max_size=2),
)
def test_a_column_is_its_texts_one_by_one(texts: list[str | None], kinds: set[PersonalKind], keep: list[str]) -> None:
    chosen = DeidentifySettings(kinds=tuple(kinds), keep=tuple(keep))
    expected = [(None, Counter[str]()) if text is None else deidentify_text(text, chosen) for text in texts]
    clean, found = deidentify_column(pa.array(texts, pa.string()), chosen)
    assert clean.to_pylist() == [text for text, _ in expected]
    assert found == sum((counts for _, counts in expected), Counter[str]())


@settings(max_examples=200, deadline=None)
@given(
    st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True),
    st.sampled_from(["", "+86", "+86 ", "0086", "86-"]),
    st.sampled_from(["", " ", "-"]),
)
def test_every_mobile_number_goes_however_it_is_written(number: str, country: str, gap: str) -> None:
    written = country + gap.join((number[:3], number[3:7], number[7:]))
    assert _mask(f"请打{written}，谢谢") == "请打[电话]，谢谢"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["110101", "310115", "440305", "510107", "620102", "810000"]),
    st.dates(min_value=date(1920, 1, 1), max_value=date(2026, 1, 1)),
    st.integers(0, 999),
)
def test_every_identity_number_goes_and_a_mistyped_one_stays(area: str, birth: date, order: int) -> None:
    number = f"{area}{birth:%Y%m%d}{order:03}"
    number += ric.calc_check_digit(number + "0")
    assert _mask(f"号码{number}。") == "号码[身份证]。"
    mistyped = number[:-1] + ("0" if number[-1] != "0" else "1")
    assert "[身份证]" not in _mask(f"号码{mistyped}。")


_LONG = 32_767
_HOSTILE = """
    1 6 0 4 138 - + +86 ( （0 0571- 13812345678 13812345678_ 6222021234567890128_ 1234_ 1_ 1- _ @ a a. a@ @a.
    a@b.cn a@b.cn1
    微信 微信_ vx Q QQ 京 京A 京A12345 身份证 电话 电话1 省 市 路 号 1号 一 一号 A座 市1号 路1号 北京市 小区 三
    李 王高 医生 李医生 多少钱医生 我叫 我叫王 姓名王 总 张总 Dr._A Mr_Aa_ [电话]
"""


@pytest.mark.parametrize("piece", _HOSTILE.split())
def test_no_text_is_too_hostile(piece: str) -> None:
    """A pattern that tries everything at every place would not come back from one of these."""
    text = (piece.replace("_", " ") * _LONG)[:_LONG]
    for hostile in (text, f"微信：{text[:-4]}室"):
        assert deidentify_text(hostile, _ALL)[0]


@pytest.mark.parametrize(
    "text", ["\ud800", "李医生\udfff13812345678", "\x00" * 20, "１３８１２３４５６７８", "٠١٢٣٤٥٦٧٨٩٠"]
)
def test_odd_characters_do_no_harm(text: str) -> None:
    assert deidentify_text(text, _ALL)[0]
