"use strict";
const rows = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PAGE = 50;
let chosen = [];
let shown = 0;

// Every text reaches the page as text, never as markup.
function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function fillSelect(id, names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) || 0) + 1);
  for (const [name, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const option = make("option", `${name} (${count})`);
    option.value = name;
    at(id).append(option);
  }
}

function partOf(row) {
  const name = at("part").value;
  const value = name === "reward" ? row.reward : row.parts[name];
  return value === undefined ? null : value;
}

function numberIn(id) {
  return at(id).value === "" ? null : Number(at(id).value);
}

function isWithin(value, low, high) {
  if (low === null && high === null) return true;
  return value !== null && (low === null || value >= low) && (high === null || value <= high);
}

function choose() {
  const text = at("text").value.trim().toLowerCase();
  const [kind, odd, slice] = ["kind", "odd", "slice"].map((id) => at(id).value);
  const [low, high, first, last] = ["low", "high", "first", "last"].map(numberIn);
  chosen = rows.filter((row) =>
    (!kind || row.kind === kind) &&
    (!odd || row.odd.includes(odd)) &&
    (!slice || row.slices.includes(slice)) &&
    isWithin(partOf(row), low, high) &&
    isWithin(row.step, first, last) &&
    (!text || [row.id, row.query, row.rewrite, row.baseline, row.context, row.judge, row.detail]
      .some((part) => part !== undefined && part.toLowerCase().includes(text))));
  const order = at("order").value;
  if (order !== "log") {
    const sign = order === "up" ? 1 : -1;
    chosen.sort((a, b) => {
      const [one, other] = [partOf(a), partOf(b)];
      if (one === null || other === null) return (one === null) - (other === null);
      return sign * (one - other);
    });
  }
  shown = 0;
  at("rows").replaceChildren();
  showMore();
}

function showMore() {
  for (const row of chosen.slice(shown, shown + PAGE)) at("rows").append(card(row));
  shown = Math.min(chosen.length, shown + PAGE);
  at("found").textContent = `${chosen.length} of ${rows.length} rows match; ${shown} shown`;
  at("more").hidden = shown >= chosen.length;
}

function card(row) {
  const article = make("article");
  const head = make("h2");
  head.append(make("span", `#${row.n}`));
  if (row.step !== null) head.append(make("span", `step ${row.step}`));
  head.append(make("span", row.id, "tag"), make("span", row.reason ? `${row.kind}: ${row.reason}` : row.kind, `tag ${row.kind}`));
  if (row.reward !== null) head.append(make("span", `reward ${row.reward.toFixed(3)}`));
  for (const name of row.slices) head.append(make("span", name, "tag"));
  for (const name of row.odd) head.append(make("span", name, "tag odd"));
  const list = make("dl");
  const add = (name, text) => {
    if (text === undefined || text === "") return;
    const value = make("dd", text);
    value.dir = "auto";
    list.append(make("dt", name), value);
  };
  add("query", row.query);
  add("context", row.context);
  add("rewrite", row.rewrite === undefined ? "(empty)" : row.rewrite);
  add("baseline", row.baseline);
  add("parts", Object.entries(row.parts).filter(([, value]) => value)
    .map(([name, value]) => `${name} ${value > 0 ? "+" : ""}${value}`).join("   "));
  add("ranks", Object.entries(row.ranks).map(([name, rank]) => `${name} ${rank === null ? "not found" : rank}`).join("   "));
  add("judge", row.judge);
  add("detail", row.detail);
  article.append(head, list);
  return article;
}

fillSelect("kind", rows.map((row) => row.kind));
fillSelect("odd", rows.flatMap((row) => row.odd));
fillSelect("slice", rows.flatMap((row) => row.slices));
at("filters").addEventListener("input", choose);
at("filters").addEventListener("reset", () => setTimeout(choose));
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("more").addEventListener("click", showMore);
choose();
