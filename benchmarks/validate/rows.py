"""A large JSONL file of chats, the same bytes every time: no two rows are alike, some hold line feeds, quotation marks or other scripts."""

from __future__ import annotations

import json
import random
from pathlib import Path

# So many texts are written out; rows differ from each other by their number and by how they are put together.
TEXTS = 20_000
_WORDS = (
    "the model answers a question about orders invoices weather and returns please check whether my parcel has arrived since Monday "
    "because shipping took longer than expected I would like to change the address of delivery thank you for your patience we will send "
    "a replacement within three days unless you prefer a refund to your account which usually needs five working days to appear"
)
_OTHER = "заказ доставка спасибо адрес возврат 注文 配送 住所 返金 ありがとう tilaus osoite päivää hyvitys 주문 배송 주소 환불"


def write_rows(path: Path, size: int) -> int:
    """Writes at least `size` bytes of whole rows; gives how many rows. A tenth of the texts holds other scripts than Latin."""
    dice = random.Random(11)  # noqa: S311 - the same rows every time
    texts = [_text(dice) for _ in range(TEXTS)]
    rows = written = 0
    with path.open("w", encoding="utf-8", newline="\n", buffering=1 << 20) as file:
        while written < size:
            turns = [f'{{"role": "system", "content": "You help the customers of shop {rows % 40}."}}']
            for _ in range(dice.randint(1, 3)):
                turns.append(f'{{"role": "user", "content": "Case {rows}: {dice.choice(texts)}"}}')
                turns.append(f'{{"role": "assistant", "content": "{dice.choice(texts)}"}}')
            line = f'{{"id": {rows}, "messages": [{", ".join(turns)}]}}\n'
            file.write(line)
            written += len(line.encode())
            rows += 1
    return rows


def _text(dice: random.Random) -> str:
    """A text as JSON, without its quotation marks: lengths as in real chats, many short and a few long."""
    words = dice.choices((_OTHER if dice.random() < 0.1 else _WORDS).split(), k=min(400, int(dice.lognormvariate(3.4, 0.8))))
    text = " ".join(words) or "yes"
    if dice.random() < 0.3:
        text = text.replace(" the ", ' "the" ').replace(" and ", "\n- ")
    return json.dumps(text, ensure_ascii=False)[1:-1]
