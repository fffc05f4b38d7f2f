"""Texts compared by meaning: folding, numbers as quantities, negations, a tenant's terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.records.files import BadInput
from reward.settings.recipe import TenantSettings, load_tenant
from reward.text.fold import fold, invisible_characters, is_same_text
from reward.text.mentions import mentions
from reward.text.polarity import denials
from reward.text.quantities import Known
from reward.text.terms import Contradiction, Lexicon

SAME = [
    ("1.5片", "一片半"),
    ("2周", "14天"),
    ("9点半", "上午9:30"),
    ("2个月", "60天"),
    ("双11", "双十一"),
    ("10万单位", "100000单位"),
    ("100㎡", "100平方米"),
    ("100 m²", "100平米"),
    ("50%", "百分之五十"),
    ("1,000 元", "1000元"),
    ("½片", "半片"),
    ("0.50毫克", "0.5mg"),
    (".5片", "0.5片"),
    ("3台设备", "三台设备"),
    ("半年", "6个月"),
    ("一个半小时", "90分钟"),
    ("二三十粒", "20-30粒"),
    ("2-3片", "2到3片"),
    ("3~5天", "3至5天"),
    ("维生素B12", "维生素b12"),
    ("iPhone 14", "iphone14"),
    ("omega-3", "omega3"),
    ("辅酶Q10", "辅酶 q10"),
    ("五成", "50%"),
    ("三分之一", "1/3"),
    ("1½片", "一片半"),
    ("1.5万", "15000"),
    ("两年半", "30个月"),
    ("3岁", "36个月"),
    ("六岁", "6岁"),
    ("两千五", "2500元"),
    ("2千5", "2500"),
    ("1万2", "12000元"),
    ("10w", "10万"),
    ("19:00", "晚上7点"),
    ("下午三点", "15:00"),
    ("第三章", "第3章"),
    ("周三", "星期3"),
    ("1小时30分钟", "90分钟"),
    ("一年零三个月", "15个月"),
    ("俩月", "2个月"),
    ("半个月", "15天"),
    ("八折", "8折"),
    ("五折", "半价"),
    ("1.5万元", "一万五"),
    ("two weeks", "14 days"),
    ("twenty-five tablets", "25 tablets"),
    ("3 tablets", "three tablets"),
    ("24小时", "1天"),
    ("500g", "一斤"),
    ("四六级", "4级6级"),
    ("二〇二六年", "2026年"),
    ("3个小时", "180分钟"),
    ("一周岁", "12个月"),
    ("2点钟", "两点"),
    ("30多岁", "三十多岁"),
    ("一百二十块", "120元"),
    ("每周三次", "一周3次"),
    ("¥99", "99元"),
    ("99块9", "99块9"),
    ("一个半月", "45天"),
    ("八周", "2个月"),
    ("618", "六一八"),
    ("九五折", "95折"),
    ("三块五", "3.5元"),
    ("一米八", "1.8米"),
    ("五个多月", "5个月"),
    ("6.18", "6月18日"),
    ("第二瓶", "第2件"),
    ("初三", "初中三年级"),
]
DIFFERENT = [
    ("六岁", "十六岁"),
    ("两台", "二十台"),
    ("3片", "三十片"),
    ("3天", "3个月"),
    ("B12", "B6"),
    ("b12", "12粒"),
    ("1.5片", "15片"),
    ("上午9点", "晚上9点"),
    ("35个月", "36个月"),
    ("半片", "一片半"),
    ("2周", "2天"),
    ("第三章", "第二章"),
    ("50%", "15%"),
    ("10万", "1万"),
    ("周三", "周四"),
    ("3mg", "3g"),
    ("双11", "双12"),
    ("2岁", "2片"),
    ("九五折", "九折"),
    ("高三", "高二"),
    ("1小时30分钟", "1小时"),
    ("3-5天", "3-6天"),
    ("14岁", "14天"),
]


def covers(one: str, other: str) -> bool:
    """Whether every number of `one` that counts is among those of `other`."""
    known = Known.of(mentions(fold(other)))
    return all(m.is_covered_by(known) for m in mentions(fold(one)) if not m.may_drop)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_a_number_respelled_is_the_same(one, other):
    assert mentions(fold(one)) and mentions(fold(other))
    assert covers(one, other) and covers(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_number_is_another(one, other):
    assert not (covers(one, other) and covers(other, one))


@pytest.mark.parametrize(
    "text",
    [
        "百合",
        "千万别",
        "万一",
        "一般",
        "三高",
        "十分好",
        "一直",
        "二胎",
        "双向",
        "四季",
        "三七粉",
        "统一",
        "唯一",
        "一下",
        "一样",
        "二维码",
    ],
)
def test_words_with_numerals_count_nothing(text):
    assert not [m for m in mentions(fold(text)) if not (m.is_loose or m.is_article)]


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("没怀孕能吃吗", ["怀孕"]),
        ("没得过糖尿病能吃吗", ["糖尿病"]),
        ("从来没吃过鱼油", ["吃过鱼油"]),
        ("没有 糖尿病", ["糖尿病"]),
        ("不是本专业能报名吗", ["本专业"]),
        ("没拆封能退吗", ["拆封"]),
        ("未满18岁", ["满18岁"]),
        ("i am not pregnant", ["pregnant"]),
        ("without a prescription", ["prescription"]),
        ("能不能吃，有没有用，可不可以", []),
        ("特别 分别 别墅 非常 非洛地平 无论 未来 不锈钢 不好意思 没事", []),
        ("血压不稳定 胃不舒服 不良反应", []),
        ("睡不着 打不开 登不上", []),
        ("吃了没 发货没有", []),
        ("whether or not, no. 5", []),
    ],
)
def test_what_a_text_denies(text, scopes):
    assert [denial.scope for denial in denials(fold(text))] == scopes


@pytest.mark.parametrize("text", ["孕妇不能吃吗", "不贵吗", "没有检测报告吗", "didn't he win"])
def test_a_negative_question_asks_what_the_plain_one_asks(text):
    assert [denial.asks for denial in denials(fold(text))] == [True]


@given(st.text())
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("孕婦可以吃魚油嗎", "孕妇可以吃鱼油吗"),
        ("ＤＨＡ　２片", "dha 2片"),
        ("孕\u200b妇\ufe0f\ue000", "孕妇"),
        ("鱼油\u3164 用法", "鱼油用法"),
        ("A\r\nB\u2028C", "abc"),
        ("STRASSE", "straße"),
    ],
)
def test_one_text_in_other_clothes(one, other):
    assert is_same_text(one, other)


def test_emoji_hide_nothing():
    assert not invisible_characters("👩‍⚕️ 鱼油 ❤️") and invisible_characters("鱼\u200d油") == {"\u200d"}


def test_terms_are_found_longest_first_and_spread_out():
    lexicon = Lexicon.of(
        {"孕妇": ["怀孕"], "儿童": ["孩子", "3-17岁", "男孩~"]}, {"胶原肽": ["胶原蛋白粉"], "蛋白粉": []}
    )

    def found(text: str) -> list[str]:
        return sorted(term.group for term in lexicon.find(fold(text)) if not term.is_hint)

    assert found("胶原蛋白粉") == ["胶原肽"]
    assert found("孕、妇") == found("孕 妇") == found("孕·妇能吃") == ["孕妇"]
    assert found("大小 孩子") == ["儿童"] and found("送老孩 子孙") == []
    assert found("男孩 6岁") == []
    assert (
        {term.group for term in lexicon.find(fold("男孩"))} == {"儿童"} == {t.group for t in lexicon.find(fold("6岁"))}
    )
    assert not lexicon.find(fold("25岁"))


def test_a_term_of_two_groups_names_both():
    with pytest.raises(Contradiction, match="'怀孕' is in two groups: 孕妇 and 备孕"):
        Lexicon.of({"孕妇": ["怀孕"], "备孕": ["怀孕"]})
    with pytest.raises(ValueError, match="孕妇 and 备孕"):
        TenantSettings(
            tenant_id="t", short_id="t", system_prompt="", protected_groups={"孕妇": ["怀孕"], "备孕": ["懷孕"]}
        )


def test_the_former_key_says_what_to_write(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("tenant_id: t\nshort_id: t\nsystem_prompt: s\nprotected_terms: [孕妇]\n", encoding="utf-8")
    with pytest.raises(BadInput, match="write protected_groups"):
        load_tenant(str(file))


@pytest.mark.parametrize("tenant", ["fivedoctors", "chengla", "zlkt"])
def test_every_shipped_tenant_has_groups(tenant):
    assert len(load_tenant(tenant).protected_groups) >= 5
