// Draws hits. Data reaches the document as text nodes and property values only, never as markup.

import { sendFeedback } from "./service.js";

const CHANNEL_NAMES = { dense: "语义 dense", keyword: "关键词 BM25" };
// Characters of questions and of grammar: a pair with one of them says nothing about the matter.
const GRAMMAR = /[的了吗呢吧啊么怎什哪请问我你您他她它们和与或是在有没很都就也还]/;

export function element(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** What is worth marking: the Latin words and numbers of the texts, and every two neighbouring Chinese characters. */
export function queryTerms(...texts) {
  const terms = new Set();
  for (const text of texts) {
    for (const [run] of text.toLowerCase().matchAll(/\p{Script=Han}+|[\p{Script=Latin}\d]{2,}|\d/gu)) {
      const characters = [...run];
      if (!/\p{Script=Han}/u.test(run)) terms.add(run);
      else characters.slice(1).forEach((character, i) => terms.add(characters[i] + character));
    }
  }
  return [...terms].filter((term) => !GRAMMAR.test(term)).sort((x, y) => y.length - x.length);
}

/** The text with what the terms cover in <mark>s; terms may overlap. */
export function markTerms(text, terms) {
  const fragment = document.createDocumentFragment();
  const covered = new Uint8Array(text.length);
  // Terms hold letters and digits only: nothing to escape. The lookahead finds overlapping ones.
  const anyTerm = new RegExp(`(?=(${terms.join("|")}))`, "giu");
  for (const match of terms.length ? text.matchAll(anyTerm) : []) {
    covered.fill(1, match.index, match.index + match[1].length);
  }
  for (let start = 0, end; start < text.length; start = end) {
    for (end = start + 1; end < text.length && covered[end] === covered[start]; ) end += 1;
    const part = text.slice(start, end);
    fragment.append(covered[start] ? element("mark", "", part) : part);
  }
  return fragment;
}

function scoreBar(name, value, hint) {
  const bar = element("div", "score");
  bar.title = hint;
  const track = element("span", "score-track");
  track.style.setProperty("--share", value);
  bar.append(element("span", "score-name", name), track, element("span", "score-value", value.toFixed(3)));
  return bar;
}

/** How a hit's rank differs from its rank in the other column; `otherRank` 0: it is not among the other's hits. */
function describeMove(rank, otherRank, other) {
  if (!otherRank) return { kind: "only", text: `${other} 未列出`, label: `${other} 没有这条` };
  const [text, by] = [`${other} #${otherRank}`, otherRank - rank];
  if (by > 0) return { kind: "up", text: `${text} ↑${by}`, label: `比 ${other} 靠前 ${by} 位` };
  if (by < 0) return { kind: "down", text: `${text} ↓${-by}`, label: `比 ${other} 靠后 ${-by} 位` };
  return { kind: "same", text: `${text} ＝`, label: `与 ${other} 名次相同` };
}

/** Marks in every hit of a column how it moved against the other column's hits (doc_ids; null: none shown there). */
export function showMoves(list, otherIds, other) {
  [...list.children].forEach((item, i) => {
    const chip = item.querySelector(".move");
    chip.hidden = otherIds === null;
    if (otherIds === null) return;
    const move = describeMove(i + 1, otherIds.indexOf(item.dataset.docId) + 1, other);
    chip.className = `move ${move.kind}`;
    chip.textContent = move.text;
    chip.title = move.label;
    chip.setAttribute("aria-label", move.label);
    chip.setAttribute("role", "img");
  });
}

function connectThumbs(item, feedback, key) {
  const stored = item.querySelector(".stored");
  const thumbs = [...item.querySelectorAll(".thumbs button")];
  for (const thumb of thumbs) {
    thumb.addEventListener("click", async () => {
      const clicked = thumb.dataset.clicked === "true";
      thumbs.forEach((each) => (each.disabled = true));
      stored.className = "stored";
      stored.textContent = "正在记录…";
      try {
        await sendFeedback({ ...feedback, clicked }, key);
        thumbs.forEach((each) => each.setAttribute("aria-pressed", String(each === thumb)));
        stored.textContent = clicked ? "已记录：有用" : "已记录：没用";
      } catch (error) {
        stored.classList.add("failed");
        stored.textContent = `没有记录：${error.message}`;
      } finally {
        thumbs.forEach((each) => (each.disabled = false));
        thumb.focus();
      }
    });
  }
}

/** One <li> of the hits list. `feedback`: what a thumb sends beside the hit's own id and position. */
export function drawHit(hit, rank, terms, reranker, feedback, key) {
  const item = document.querySelector("#hit-template").content.cloneNode(true).firstElementChild;
  item.dataset.docId = hit.doc_id;
  item.querySelector(".rank").textContent = rank;
  item.querySelector(".doc-id").textContent = hit.doc_id;
  item.querySelector(".doc-id").title = hit.document ?? "";
  item.querySelector(".content").append(markTerms(hit.content, terms));
  if (hit.matched_question) {
    const question = item.querySelector(".question");
    question.hidden = false;
    question.append("命中问题 ", markTerms(hit.matched_question, terms));
  }
  item.querySelector(".scores").append(
    scoreBar("融合分", hit.score, "各路得分归一后的加权和，各路都居首为 1，[0, 1]"),
    scoreBar("相关度", hit.reranker_score, `reranker_score：与原问题和上下文的相关度，[0, 1]，由 ${reranker} 给出`),
  );
  const channels = item.querySelector(".channels");
  for (const [channel, name] of Object.entries(CHANNEL_NAMES)) {
    const found = hit.channels?.[channel];
    const chip = element("span", found ? "channel" : "channel missed");
    chip.append(`${name} `, element("b", "", found ? `#${found.rank}` : "未命中"));
    if (found) chip.append(element("span", "channel-score", found.score.toFixed(3)));
    channels.append(chip);
  }
  connectThumbs(item, { ...feedback, doc_id: hit.doc_id, position: rank }, key);
  return item;
}
