// The page: one question, two settings, their hits beside each other.

import { drawHit, element, markTerms, queryTerms, showMoves } from "./hits.js";
import { health, search } from "./service.js";

const CHANNELS = [
  ["dense", "语义", "按意思找：文本向量的近邻"],
  ["keyword", "关键词", "按字词找：BM25"],
  ["doc2query", "问题键", "也用为每段资料写好的问题来找"],
  ["query2doc", "扩写", "先由大模型把问题写成一段说明再找"],
  ["rerank", "精排", "用重排模型给候选重新打分排序"],
  ["rewrite", "改写", "先由改写模型把问题说清楚"],
];
const BASIC = new Set(["dense", "keyword"]);
const STATES = { unavailable: "不可用", "fell back": "已回退" };
const REASONS = {
  "no rewriter is configured": "没有配置改写模型",
  "no language model is configured": "没有配置大模型",
  "no cross-encoder is configured": "没有配置重排模型",
  "no questions are indexed": "索引里还没有问题键",
  "nothing is indexed yet": "这个知识库还没有建索引",
};
const SOURCES = { given: "手动填写", rewriter: "改写模型", query: "原问题" };

const $ = (id) => document.getElementById(id);
const fromTemplate = (id) => $(id).content.cloneNode(true).firstElementChild;
const accessKey = () => $("key").value.trim();

/** The request as the form stands, less the channels. */
function readForm() {
  const [tenant_id, kb_name] = JSON.parse($("pick").value);
  const request = { query: $("query").value.trim(), tenant_id, kb_name, top_k: Number($("top_k").value), score_threshold: 0 };
  for (const field of ["history", "rewritten_query"]) {
    const text = $(field).value.trim();
    if (text) request[field] = text;
  }
  return request;
}

class Column {
  other = null;
  shownIds = null;
  #pending = null;
  #switches = new Map();

  constructor(name, title, isOn) {
    this.name = name;
    this.root = fromTemplate("column-template");
    this.root.id = `column-${name}`;
    this.root.setAttribute("aria-label", `设置 ${name}`);
    this.#part("badge").textContent = name;
    this.#part("column-title").textContent = title;
    this.hits = this.#part("hits");
    const fieldset = this.#part("switches");
    fieldset.querySelector("legend").textContent = `设置 ${name} 的通道`;
    for (const [channel, label, hint] of CHANNELS) {
      const row = fromTemplate("switch-template");
      const box = row.querySelector("input");
      row.title = hint;
      row.querySelector(".switch-name").textContent = label;
      row.querySelector("small").textContent = channel;
      box.name = channel;
      box.checked = isOn(channel);
      box.addEventListener("change", () => lastRequest && this.search(lastRequest));
      this.#switches.set(channel, box);
      fieldset.append(row);
    }
    this.#say("输入问题后，这里按名次列出命中的资料；拨动上面的开关会立刻重新检索。");
  }

  #part(className) {
    return this.root.querySelector(`.${className}`);
  }

  #say(text, kind = "hint") {
    const message = this.#part("message");
    message.className = `message ${kind}`;
    message.setAttribute("role", kind === "error" ? "alert" : "status");
    message.textContent = text;
    message.hidden = !text;
  }

  #clear() {
    this.#part("notes").replaceChildren();
    this.hits.replaceChildren();
    this.#part("took").textContent = "";
    this.shownIds = null;
  }

  /** Asks the service and shows what it says; a later search replaces one still under way. */
  async search(request) {
    this.#pending?.abort();
    const pending = (this.#pending = new AbortController());
    this.root.setAttribute("aria-busy", "true");
    const channels = Object.fromEntries([...this.#switches].map(([channel, box]) => [channel, box.checked]));
    const key = accessKey();
    if (this.shownIds === null) this.#say("正在检索…");
    try {
      const data = await search({ ...request, channels }, key, pending.signal);
      if (this.#pending !== pending) return;
      this.#clear();
      this.#draw(request, data, key);
    } catch (error) {
      if (this.#pending !== pending) return;
      this.#clear();
      this.#say(error.message, "error");
    }
    this.root.removeAttribute("aria-busy");
    showMoves(this.hits, this.other.shownIds, this.other.name);
    showMoves(this.other.hits, this.shownIds, this.name);
  }

  #draw(request, data, key) {
    const { query, tenant_id, kb_name } = request;
    const { rewritten_query, request_id, recall } = data;
    const terms = queryTerms(query, rewritten_query);
    const feedback = { tenant_id, kb_name, query, rewritten_query, request_id };
    this.shownIds = recall.map((hit) => hit.doc_id);
    this.hits.append(...recall.map((hit, i) => drawHit(hit, i + 1, terms, data.reranker, feedback, key)));
    this.#say(recall.length ? "" : "没有命中。可以多开几个通道，或换一种问法。");
    this.#part("took").textContent = `${recall.length} 条 · ${data.milliseconds.toFixed(0)} 毫秒`;
    this.#drawNotes(data, terms);
  }

  /** The rewrite used, the pseudo-document, and every channel that is not simply on. */
  #drawNotes(data, terms) {
    const notes = this.#part("notes");
    const rewrite = element("p", "note");
    rewrite.append(element("b", "", `检索用语（${SOURCES[data.rewrite_source] ?? data.rewrite_source}）`));
    rewrite.append(" ", markTerms(data.rewritten_query, terms));
    notes.append(rewrite);
    if (data.rewrite_failure) notes.append(element("p", "note warning", `改写未用上：${data.rewrite_failure}`));
    if (data.pseudo_document) {
      const pseudo = element("p", "note");
      pseudo.append(element("b", "", "扩写 Query2Doc"), " ", data.pseudo_document);
      notes.append(pseudo);
    }
    this.#noteStates(data.channels ?? {}, Boolean(data.rewrite_failure));
  }

  /** A line for each reason why channels did not work, and one for those switched off. */
  #noteStates(states, rewriteExplained) {
    const byState = new Map();
    for (const [channel, label] of CHANNELS) {
      const said = states[channel] ?? "on";
      if (["on", "given"].includes(said) || (channel === "rewrite" && rewriteExplained)) continue;
      byState.set(said, [...(byState.get(said) ?? []), label]);
    }
    for (const [said, labels] of byState) {
      const [state, ...rest] = said.split(": ");
      const why = rest.join(": ");
      const line = said === "off" ? `已关闭：${labels.join("、")}` : `${labels.join("、")}${STATES[state] ?? state}：${REASONS[why] ?? why}`;
      this.#part("notes").append(element("p", said === "off" ? "note quiet" : "note warning", line));
    }
  }
}

let lastRequest = null;
const a = new Column("A", "全部通道", () => true);
const b = new Column("B", "基础混合检索", (channel) => BASIC.has(channel));
a.other = b;
b.other = a;
$("columns").append(a.root, b.root);

/** Pointing at a hit, or reaching it by keyboard, shows the same passage in the other column. */
function showTwin(event) {
  const item = event.target.closest?.(".hit");
  for (const hit of document.querySelectorAll(".hit")) {
    hit.classList.toggle("twin", Boolean(item) && hit !== item && hit.dataset.docId === item.dataset.docId);
  }
}
$("columns").addEventListener("pointerover", showTwin);
$("columns").addEventListener("pointerleave", showTwin);
$("columns").addEventListener("focusin", showTwin);

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const request = readForm();
  if (!request.query) return;
  lastRequest = request;
  a.search(request);
  b.search(request);
});

/** Lists the knowledge bases to choose from; when there are none, a key may open some. */
async function connect() {
  const service = $("service");
  let listed = [];
  try {
    listed = (await health(accessKey())).knowledge_bases;
    const needed = accessKey() ? "没有可用的知识库：请核对访问密钥" : "没有公开的知识库：请填访问密钥";
    service.textContent = listed.length ? `服务已连接 · ${listed.length} 个知识库` : needed;
    service.classList.toggle("failed", !listed.length);
    $("key-field").hidden = Boolean(listed.length) && !accessKey();
  } catch (error) {
    service.textContent = error.message;
    service.classList.add("failed");
    $("key-field").hidden = error.status !== 401;
  }
  const picked = $("pick").value;
  const groups = new Map();
  for (const { tenant_id, kb_name } of listed) {
    if (!groups.has(tenant_id)) groups.set(tenant_id, Object.assign(document.createElement("optgroup"), { label: tenant_id }));
    groups.get(tenant_id).append(new Option(`${tenant_id} / ${kb_name}`, JSON.stringify([tenant_id, kb_name])));
  }
  $("pick").replaceChildren(...groups.values());
  if ([...$("pick").options].some((option) => option.value === picked)) $("pick").value = picked;
}

$("key").value = sessionStorage.getItem("key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  connect();
});
connect();
