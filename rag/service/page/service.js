// The service's HTTP API as the page uses it. A failure is a ServiceError with a message for people.

export class ServiceError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const EXPLANATIONS = {
  401: "需要有效的访问密钥（API key）",
  403: "这个访问密钥无权查看该租户",
  404: "没有这个租户或知识库",
  413: "请求内容过大",
  422: "请求内容不合要求",
  429: "请求太频繁，请稍后再试",
  503: "服务正忙或正在停止",
};

async function call(path, { key = "", body, signal } = {}) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let response, text;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A key with characters that no header may carry fails here too, before anything is sent.
    const unsendable = error instanceof TypeError && /[^\x20-\x7e]/.test(key);
    throw new ServiceError(unsendable ? "访问密钥里有不能发送的字符" : "连不上服务：请确认它正在运行，然后重试");
  }
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    // Something in between (a proxy) answered in its own words: the status says enough.
  }
  if (!response.ok || (response.status !== 204 && answer === null)) {
    const detail = typeof answer?.detail === "string" ? `：${answer.detail}` : "";
    throw new ServiceError(`${EXPLANATIONS[response.status] ?? `服务出错（${response.status}）`}${detail}`, response.status);
  }
  return { answer, requestId: response.headers.get("x-request-id") ?? "" };
}

/** What /healthz says; a service with keys lists the key's own knowledge bases. */
export async function health(key) {
  return (await call("/healthz", { key })).answer;
}

/** `data` of a search, its `request_id`, and the milliseconds it took as seen from here. */
export async function search(body, key, signal) {
  const started = performance.now();
  const { answer, requestId } = await call("/api/chat/general_rag", { key, signal, body: { ...body, debug: true } });
  return { ...answer.data, request_id: requestId, milliseconds: performance.now() - started };
}

/** Stores one thumb. */
export async function sendFeedback(body, key) {
  await call("/feedback", { key, body });
}
