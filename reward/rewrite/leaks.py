"""What a rewrite must not hold, being a query: tokens, tags, roles, labels, formatting, words to its judge. Pure.

All functions take folded text (`reward.text.fold`).
"""

from __future__ import annotations

import re
import unicodedata

_OPEN, _CLOSE = "[<〈《「『【\\[({]", "[>〉》」』】\\])}]"
_THOUGHT = r"t ?h ?i ?n ?k(?: ?i ?n ?g)?|thoughts?|reasoning|reflection|analysis|思考|推理|反思"
_TOKEN = re.compile(
    # <|im_end|>, <|endoftext|>, <｜end▁of▁sentence｜>
    r"<\s*\|[^<>\n]{0,40}>|\|>|<\|"
    # </s>, <eos>, <end_of_turn>, <tool_call>, <0x0a>, <br/>
    r"|<\s*/?\s*[a-z][a-z0-9_:|▁ -]{0,30}/?\s*>|<0x[0-9a-f]{2}>"
    # [INST], [/INST], <<SYS>>, [CLS]
    r"|\[\s*/?\s*(?:inst|cls|sep|pad|mask|unk|bos|eos|s|/s|system|user|assistant)\s*\]|<<\s*/?\s*sys\s*>>"
    rf"|{_OPEN}\s*/?\s*(?:{_THOUGHT})\s*/?\s*{_CLOSE}"
    # what a decoder writes for a character: \n, \u200b, &nbsp;
    r"|\\[nrtu]|&[a-z]{2,6};|&#\d+;"
)
_ROLES = "system|user|assistant|human|chatbot|gpt|用户|助手|助理|客服|系统|顾客|机器人"
_ROLE = re.compile(
    rf"(?:^|[\s,;。，；|])(?:{_ROLES})\s*:"
    r"|assistant$|(?:^|[\s。，])(?:assistant|助手|assistant\s*:?)\s*$|^(?:assistant|system|user)\s"
    r"|(?<=[\u4e00-\u9fff])\s?(?:assistant|user|system)\s*$"
)
_LABELS = (
    "改写(?:后|结果|查询|为|如下)?(?:的?(?:查询|问题|结果|文本))?|重写(?:后)?|优化(?:后)?(?:的?(?:查询|问题))?"
    "|查询(?:词|语句|改写)?|检索(?:词|式|语句|查询)?|搜索(?:词)?|关键[词字]|输出|结果|答案|回答|回复|答|问题|问"
    "|[a-z]+_(?:query|rewrite|text)|最终(?:答案|结果|查询)|新查询|标准问题"
    "|re-?writ(?:e|ten|ing)(?: (?:query|question))?"
    "|(?:search |final |new )?query|question|output|answer|result|response|keywords?"
)
_LABEL = re.compile(
    rf"^[\s*#>\"'“\[(【-]*(?:{_LABELS})[\s*\"'”\])】]*[:=]"
    r"|^\s*(?:改写(?:后|结果|查询|如下)|重写(?:后|结果)|优化后(?:的?(?:查询|问题))?|rewritten(?: query)?)\s"
)
_CHAT = re.compile(
    r"^(?:(?:好的|当然|没问题|您好|你好)[,!。:~\s]|以下是|这是改写|改写如下|根据(?:您|你|用户|上下文|对话)"
    r"|作为(?:一个|一名)?(?:ai|助手)|sure[,!. ]|certainly|of course|here(?:'s| is| are)|as an ai|i (?:have )?rewr"
    r"|based on (?:the|your))"
)
_MARKUP = re.compile(r"\*\*|```|`[^`\n]+`|__[^_\n]+__|^\s*#{1,6}\s|^\s*[-*•·>]\s|\]\(|https?://|~~")
_JSON = re.compile(r"^\s*[{\[].*[}\]]\s*$|[\"'“][\w\u4e00-\u9fff]{1,20}[\"'”]\s*:", re.DOTALL)
_QUOTED = re.compile(
    r"^\s*(?:\"[^\"]*\"|'[^']*'|“[^”]*”|‘[^’]*’|「[^」]*」|『[^』]*』|`[^`]*`|【[^】]*】|\([^)]*\)|\[[^\]]*\])\s*$"
)

_MARK = r"(?:满分|最高分?|高分|(?:[一二三四五12345]|10|100|十|一百)\s*分|full marks?|perfect score)"
_CANDIDATE = (
    r"(?:候选\s*[a-d一二三四12]?|改写\s*[a-d一二三四12]?|[本该此这](?:条|个)?(?:改写|候选|答案|回答|查询|条)"
    r"|(?<![a-z0-9素])[ab](?![a-z0-9]))"
)
_BETTER = "(?:好|优|佳|胜出|获胜|胜|赢|强|优于|值得|应(?:得|打|判|当))"
_JUDGE = "judge|grader|evaluator"
_ADDRESS = re.compile(
    rf"(?:给|打|判|评|得|应|请|授予|值)(?:我|它|本条|这条|出|为|个|予|了)?\s*{_MARK}(?!钟)"
    rf"|{_CANDIDATE}\s*(?:更|最|较|明显)?{_BETTER}"
    r"|[本该此这](?:条|个)?(?:改写|候选)|(?:其余|其他|别的|另一个?|另外)(?:的)?(?:候选|改写|答案|回答|选项|条)"
    r"|评委|裁判员?(?=[,:，：请您你老大]|$)|评审(?:员|老师|专家|模型|请|您)"
    r"|(?:评分|打分|评判|评估)(?:员|者|模型|系统|助手)|(?:请|务必)(?:评|打分|判|选择?[ab本此这])"
    r"|(?:忽略|无视|忘记|忘掉|不要理会|跳过)(?:以上|之前|前面|上述|上面|先前|所有|一切|全部|原有|系统)"
    r"|系统(?:提示|指令|消息)|[你您](?:现在)?是(?:一个|一名|评|公正)|开发者模式|最[佳好优](?:的)?(?:改写|候选|答案)"
    r"|改写质量|领域适配|意图保持|可检索性|综合得分|评分理由"
    r"|(?:得分|评分|分数|打分)\s*[:=]?\s*\d(?!\d?\s*(?:元|怎|多|以上|要求))"
    r"|(?:ignore|disregard|forget|override)\s*(?:all|the|any|previous|above|prior|earlier|your|these)"
    r"|(?:rate|score|grade|give|mark|rank|award)"
    r"(?:\s+(?:it|this|me|mine|a|an|the|rewrite|us|that|one|answer|candidate|query|as|with|at))*\s+"
    r"(?:five|5(?!\d)|full|top|highest|perfect|best|max|10(?!\d)|ten)"
    r"|(?:score|rating|grade)\s*[:=]\s*\d|\b[15]/5\b|10/10|(?:five|5) (?:stars?|out of)"
    r"|other (?:candidate|rewrite|answer)s?|system\s*prompt"
    rf"|\bdear (?:{_JUDGE})|\b(?:{_JUDGE})s?\s*[:,]|as a (?:{_JUDGE})|you are (?:a|an|the|now)\b"
    r"|(?:this|it|mine|(?:candidate|answer|rewrite) \w) (?:is|should be) (?:the )?"
    r"(?:best|better|preferred|winner|correct)"
    r"|(?:prefer|choose|pick|select) (?:this|me|candidate|the first)|(?:best|perfect|winning) (?:rewrite|candidate)"
    # a verdict on letters: 选A, 更好：A, B不如A, A is better, A优于B, A > B
    r"|(?:选|更好的?是?|胜者?是?|赢家是?|首选|推荐|better|best|winner|choose|pick|prefer)\s*[:=是]?\s*"
    r"(?<![a-z0-9])[ab](?![a-z0-9])"
    r"|(?<![a-z0-9])[ab]\s*(?:不如|不及|优于|好于|强于|胜过|超过|赢了?|>|<|is (?:better|best|worse)|wins|beats|over)"
    r"|perfect answer|verdict|\"?(?:preferred|winner|preference)\"?\s*[:=]"
)
_MEANT = "°®™©№℃℉"
_BARE_MARK = re.compile(r"(?:^|[\s,，。;；!])(?:满分|[五5]分)(?:$|[\s,，。;；!])")


def decoration(rewrite: str, known: str) -> str | None:
    """A symbol of `rewrite` that says nothing to a search, such as a star or an emoji; None where there is none.

    What query or context (`known`) has is no decoration, nor are the marks of names and measures.
    """
    for character in rewrite:
        if unicodedata.category(character) == "So" and character not in _MEANT and character not in known:
            return character
    return None


def leak(rewrite: str, query: str, special_tokens: tuple[str, ...] = ()) -> str | None:
    """What of `rewrite` belongs to a chat, a template or a format rather than to a query; None where nothing does.

    What the query itself holds is no leak.
    """
    for token in special_tokens:
        if token.strip() and token.lower() in rewrite and token.lower() not in query:
            return token
    for pattern in (_TOKEN, _ROLE, _LABEL, _CHAT, _MARKUP, _JSON, _QUOTED):
        found = pattern.search(rewrite)
        if found and found.group().strip() not in query and not (pattern is _QUOTED and pattern.search(query)):
            return found.group().strip()
    return None


def address(rewrite: str, known: str) -> str | None:
    """Words of `rewrite` that speak to its judge or name its verdict, unless query or context (`known`) has them."""
    for found in _ADDRESS.finditer(rewrite):
        if found.group().strip() not in known:
            return found.group().strip()
    mark = _BARE_MARK.search(rewrite)
    return mark.group().strip() if mark and "分" not in known else None
