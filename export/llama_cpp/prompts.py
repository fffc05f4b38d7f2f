"""Prompts to verify an export with: questions as customers type them, in the form of the training."""

from __future__ import annotations

from pathlib import Path

from data_prep.expansions.queries import read_queries
from data_prep.prompt import build_messages
from reward.expansion.prompt import build_messages as build_expansion_messages
from reward.records.sample import Context, Metadata, Sample, read_samples
from reward.settings.recipe import Language, TenantSettings

PROMPTS = 24  # of a test set as many are taken
QUERIES: dict[Language, tuple[str, ...]] = {
    "zh": (
        "鱼油怎么吃", "孕妇能吃人参吗", "这个课多少钱", "血糖高可以喝蜂蜜吗", "考研政治什么时候开始复习",
        "买了三盒还没发货", "钙片和维生素D能一起吃吗", "小孩挑食吃什么好", "在职能报名吗", "退款要多久到账",
        "益生菌饭前吃还是饭后吃", "听课有回放吗", "晚上睡不着怎么办", "二建报名条件", "胶囊打不开可以嚼着吃吗",
        "大专能考教师资格证吗",
    ),
    "en": (
        "how do i take fish oil", "can pregnant women eat ginseng", "what does the course cost", "when was he born",
        "is calcium good for old people", "where can I download the slides", "how long does delivery take",
        "who invented the telephone", "what are the exam dates", "difference between IELTS and TOEFL",
        "can I get a refund after 30 days", "how many tablets a day", "is there a discount for students",
        "what happened after that", "does it help with sleep", "which one is better for children",
    ),
}  # fmt: skip
PROFILES: dict[Language, tuple[str, ...]] = {
    "zh": ("", "女，62岁，高血压，长期服药"),
    "en": ("", "woman, 62, high blood pressure"),
}


def verification_messages(tenant: TenantSettings | None, test: Path | None) -> list[list[dict[str, str]]]:
    """Return conversations of one system and one user message each.

    Args:
        tenant: whose system prompt and language; None: none's, in Chinese and English.
        test: held-out samples (JSONL) to take the questions from.

    Raises:
        BadInput: `test` cannot be read.
    """
    tenants = [tenant] if tenant else [_nobody("zh"), _nobody("en")]
    conversations = []
    for one in tenants:
        samples = read_samples(test)[:PROMPTS] if test else _samples(one)
        conversations += [build_messages(sample, one) for sample in samples]
    return conversations


def verification_queries(test: Path | None) -> list[list[dict[str, str]]]:
    """Return conversations of query expansion, one user message each.

    Args:
        test: queries to take, as `evaluation.expansions --queries` has them; None: ours, in Chinese and English.

    Raises:
        BadInput: `test` cannot be read.
    """
    queries = [one.query for one in read_queries(test)[:PROMPTS]] if test else [*QUERIES["zh"], *QUERIES["en"]]
    return [build_expansion_messages(query) for query in queries]


def _samples(tenant: TenantSettings) -> list[Sample]:
    profiles = PROFILES[tenant.language]
    return [
        Sample(
            sample_id=f"verify_{number}",
            original_query=query,
            context=Context(user_profile=profiles[number % len(profiles)]),
            metadata=Metadata(tenant_id=tenant.tenant_id),
        )
        for number, query in enumerate(QUERIES[tenant.language])
    ]


def _nobody(language: Language) -> TenantSettings:
    prompts = {"zh": "把用户的问题改写成便于检索的查询。", "en": "Rewrite questions as search queries."}
    return TenantSettings(tenant_id="verify", short_id="verify", system_prompt=prompts[language], language=language)
