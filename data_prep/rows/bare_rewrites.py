"""What a model printed around its rewrite (a label, quotes, Markdown, an explanation), and the rewrite without it."""

from __future__ import annotations

import re

from data_prep.rows.missing import is_missing_text

# What may be dressed, in RE2's words too. Nearly every rewrite is plain.
DOUBTFUL = "[\n\r:：“\"「]|^\\s*['‘『`*_#<>＂＇]|<\\|\\w+\\|>|</s>"
SEVERAL = "several paragraphs or labels: kept"
KEPT = "begins as a label or quotation of its question or dialogue does: kept"

_LONGEST = 5000  # characters
_SPEAKERS = ("助手", "assistant")  # of every line of a dialogue
_PAIRS = ("***", "**", "__", "```", "`", '"', "'", "“”", "‘’", "「」", "『』", "＂", "＇")
_END_TOKENS = re.compile(r"(?:\s*(?:<\|\w+\|>|</s>))+\s*$")
_TAGGED = re.compile(
    r"<(rewrite|rewritten|rewritten_query|query|改写|改写结果|改写查询)>(.*?)</\1>", re.DOTALL | re.IGNORECASE
)
_FENCE = re.compile(r"```[\w-]*\n(.*?)\n?\s*```", re.DOTALL)
_WHAT = r"(?:用户)?(?:的)?(?:查询|问题|问句|问法|提问|句子|语句|检索词|检索式|搜索词|查詢|問題|内容|结果|query|Query)"
_WORDS = (
    *(
        rf"(?:查询|问题|问句|最终|最终的|智能|查詢)?(?:改写|重写|改寫|重寫)(?:后|後|过|成|为)?(?:的)?(?:完整|独立|最终)?(?:{_WHAT})?",
    ),
    *(rf"(?:优化|补全|完善)(?:后|後)(?:的)?{_WHAT}", rf"(?:最终|最终的|独立|完整|独立完整的){_WHAT}"),
    *("检索词", "检索查询", "检索语句", "检索式", "搜索词", "搜索查询", "搜索语句", "查询语句", "查询"),
    r"(?:the |my |your )?(?:final |best )?"
    r"(?:rewritten|rewrite|re-written|reformulated|refined|optimi[sz]ed|improved|standalone)"
    r"(?:[ _-]?(?:search )?(?:query|question|version|text))?",
    r"(?:query|question)[ _-](?:rewrite|rewriting)",
    r"(?:final|search|retrieval|standalone)[ _](?:query|question)",
    *("query", "assistant", "助手", "输出", "输出结果", "答案", "output", "answer"),
)
_OPENERS = r"(?:(?:好的|好|当然|没问题|可以|sure|okay|ok|certainly|of course)[，,。.!！:： ]\s*)?"
_HERE = r"(?:(?:以下|下面|这)(?:是|为)\s*(?:用户)?(?:的)?|(?:here is|here's|this is)\s+)?"
_LIKE = r"(?:结果)?(?:如下|为|是| is| as follows)?(?:所示)?(?:\s*[(（][^()（）\n]{1,20}[)）])?"
_LABEL = re.compile(
    rf"(?:[#>\s]*|- |1\. ?)[*_]*【?{_OPENERS}{_HERE}(?P<word>{'|'.join(_WORDS)}){_LIKE}"
    r"(?:[*_】\s]*[:：][*_ \t]*|[*_】]*[ \t]*\n|(?<=[是为s])\s*(?=[“\"「]))\s*",
    re.IGNORECASE,
)
# Lines that repeat the question before the answer is labelled.
_ECHO = re.compile(
    r"[#>\s]*[*_]*"
    r"(?:原始?查询|原始?问题|用户(?:问题|查询|提问|画像)|历史摘要|(?:original|user) (?:query|question))"
    r"[*_]*\s*[:：]",
    re.IGNORECASE,
)
_EXPLAINS = (
    r"(?:改写|重写|补充)?(?:解释|说明|理由|原因|思路|分析|备注|依据)|注|注意|"
    r"explanation|reason(?:ing)?|rationale|notes?|justification"
)
_NOTE = re.compile(r"\s*[(（](?:注|说明|解释|备注|改写说明|note)[:：][^()（）]*[)）]\s*$", re.IGNORECASE)
_EXPLANATION = re.compile(
    rf"[*_#>\-\s]*[(（【]?[*_\s]*(?:(?:{_EXPLAINS})[*_\s】]*[:：]"
    r"|(?:这个|这样|这里|该|上述|以上|此|本次)(?:的)?(?:改写|重写|查询)|(?:改写|重写)(?:后|说明|理由|时)"
    r"|(?:this|the) (?:rewrit|reformulat|query)|i (?:have |'ve )?(?:rewrote|rewritten|added|kept|made))",
    re.IGNORECASE,
)


def bare_rewrite(text: str, question: str, *dialogue: str) -> tuple[str, list[str]]:
    """Return the rewrite in what a model printed, and what was stripped or, being uncertain, kept.

    Stripped are: a label before it (`改写后的查询：`, `Here is the rewritten query:`), quotes, Markdown emphasis and
    fences around the whole, an explanation below it, the tokens that end a turn. A label without a rewrite is none.

    Args:
        dialogue: what precedes the question. A rewrite may begin with a label or a quotation that these contain.
    """
    said: list[str] = []
    if len(text) > _LONGEST:  # no rewrite
        return text, said
    bare = _END_TOKENS.sub("", text).strip()
    if bare != text.strip():
        said.append("end token stripped")
    for _ in range(4):  # quotes within a label within a fence
        before = bare
        bare = _without_explanation(bare, said)
        bare = _without_label(bare, question, dialogue, said)
        bare = _without_pair(bare, (question, *dialogue), said)
        if bare == before:
            break
    if "\n" in bare and re.search(r"\n\s*\n", bare):
        said.append(SEVERAL)
    if said and is_missing_text(bare):
        bare = ""
    kept = set(said) <= {KEPT, SEVERAL}
    return text if kept else bare, list(dict.fromkeys(said))


def _without_label(text: str, question: str, dialogue: tuple[str, ...], said: list[str]) -> str:
    start = 0
    lines = text.splitlines(keepends=True)
    while len(lines) > 1 and _ECHO.match(lines[0]):
        start += len(lines.pop(0))
    while lines and start and not lines[0].strip():
        start += len(lines.pop(0))
    label = _LABEL.match(text, start)
    label = label or (_LABEL.fullmatch(text + "\n") if not start else None)
    if not label:
        return text
    word = label["word"].casefold()
    own = re.compile(rf"{re.escape(word)}\s*[:：]", re.IGNORECASE)
    if word in question.casefold() or (word not in _SPEAKERS and any(map(own.search, dialogue))):
        said.append(KEPT)
        return text
    if any(_LABEL.match(line) for line in text[label.end() :].splitlines()):
        said.append(SEVERAL)
        return text
    said.append(f"label stripped ({' '.join(label[0].split())[:40]})")
    return text[label.end() :].strip()


def _without_pair(text: str, around: tuple[str, ...], said: list[str]) -> str:
    if tagged := _TAGGED.fullmatch(text):
        said.append("tag stripped")
        return tagged[2].strip()
    if fence := _FENCE.fullmatch(text):
        said.append("Markdown stripped")
        return fence[1].strip()
    for pair in _PAIRS:
        first, last = (pair[0], pair[1]) if len(pair) == 2 and pair[0] != pair[1] else (pair, pair)
        inner = text[len(first) : -len(last)]
        whole = text.startswith(first) and text.endswith(last) and inner.strip()
        if not whole or len(text) <= len(first + last) or first in inner or last in inner:
            continue
        if any(text in one for one in around) or around[0].strip().startswith(first):
            said.append(KEPT)
            return text
        said.append("Markdown stripped" if first[0] in "*_`" else "quotes stripped")
        return inner.strip()
    return text


def _without_explanation(text: str, said: list[str]) -> str:
    if (note := _NOTE.search(text)) and note.start():
        said.append("explanation stripped")
        return text[: note.start()].strip()
    for end in re.finditer(r"\s*\n\s*", text):
        if end.start() and _EXPLANATION.match(text, end.end()):
            if _LABEL.match(text, end.end()) or _LABEL.fullmatch(text[: end.start()] + "\n"):
                continue
            said.append("explanation stripped")
            return text[: end.start()].strip()
    return text
