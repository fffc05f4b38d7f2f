"""The real service on a loopback port, over a data folder made on the spot."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from rag.catalogue.catalogue import Catalogue
from rag.documents.records import Document, Passage
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import embedder_maker
from rag.service.app import create_app
from rag.service.request_head import RequestHeadLimits
from rag.settings import ServiceSettings
from tests.support.asgi_server import AsgiServer

PRODUCTS = ["鱼油", "钙片", "益生菌", "维生素D", "辅酶Q10", "叶黄素", "蛋白粉", "褪黑素", "氨糖", "葡萄籽"]
TOPICS = {
    "usage": "每日两粒，建议随餐服用，温水送服",
    "pregnancy": "孕妇和哺乳期妇女食用前请先咨询医生",
    "children": "三岁以下儿童不建议食用",
    "storage": "请置于阴凉干燥处，避免阳光直射",
    "price": "一瓶六十粒，单价一百二十八元",
    "effect": "坚持食用三个月后效果更明显",
    "conflict": "不宜与华法林等抗凝药物同时食用",
    "sleep": "睡前半小时食用，有助于改善睡眠",
    "return": "未拆封的产品七天内可以退货",
    "invoice": "下单时填写抬头即可开具电子发票",
    "origin": "原料产自挪威，国内工厂分装",
    "shelf": "保质期二十四个月，开封后尽快吃完",
}
HEALTH = {f"{i}-{topic}": f"{p}：{p}{text}。" for i, p in enumerate(PRODUCTS) for topic, text in TOPICS.items()}
RETRIEVER = "hashing"  # a dense channel that needs no model
COURSES = {"c1": "考研英语课程含真题精讲。", "c2": "公务员考试复习资料包邮。", "c3": "课程有效期两年。"}
REFUNDS = {"f1": "课程可以退款。"}


def add_knowledge_base(folder: Path, tenant: str, texts: Mapping[str, str], kb_name: str = "default") -> None:
    """Adds an indexed knowledge base with a document of one passage for each text."""
    catalogue = Catalogue(folder)
    indexer = Indexer(catalogue, open_engine(folder), embedder_maker(RETRIEVER))
    kb = catalogue.create_knowledge_base(tenant, kb_name)
    catalogue.put_documents(kb.id, [Document(name, (Passage(name, text),)) for name, text in texts.items()])
    indexer.rebuild(kb, lambda share: None)
    indexer.close()
    catalogue.close()


def add_sample_tenants(folder: Path) -> None:
    """fivedoctors/default, chengla/default and chengla/faq."""
    add_knowledge_base(folder, "fivedoctors", HEALTH)
    add_knowledge_base(folder, "chengla", COURSES)
    add_knowledge_base(folder, "chengla", REFUNDS, "faq")


@contextmanager
def serving(folder: Path, settings: ServiceSettings | None = None, *, keys: bool = False) -> Iterator[str]:
    """URL of the service over this data folder, run by uvicorn in a thread. Its retriever is `RETRIEVER` unless
    `settings` name one. `keys`: callers need one."""
    settings = settings or ServiceSettings()
    if "retriever" not in settings.model_fields_set:
        settings = settings.model_copy(update={"retriever": RETRIEVER})
    with AsgiServer(create_app(folder, settings, keys), http=RequestHeadLimits) as server:
        yield server.url


def post(url: str, path: str = "/api/chat/general_rag", key: str = "", **body: Any) -> httpx.Response:
    """One JSON request, with an access key if there is one."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(url + path, json=body, headers=headers, timeout=60, trust_env=False)


def search(url: str, key: str = "", **body: Any) -> httpx.Response:
    """A search of everything there is, unless `body` says otherwise."""
    everything = {"query": "鱼油怎么吃", "tenant_id": "fivedoctors", "top_k": 100, "score_threshold": 0}
    return post(url, key=key, **everything | body)


def recall(url: str, key: str = "", **body: Any) -> list[dict[str, Any]]:
    """The hits of `search`."""
    response = search(url, key, **body)
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["data"]["recall"]
    return hits


@contextmanager
def rewriter_service(answer: Callable[[dict[str, Any]], tuple[int, bytes]]) -> Iterator[str]:
    """URL of a rewriter whose `/api/rewrite_query` answers (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer({"path": self.path, **request})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
