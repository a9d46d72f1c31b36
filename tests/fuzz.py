"""Odd inputs for everything that reads data, and what must hold for each: a sentence or a row's fate, never a crash."""

import ast
import csv
import gzip
import inspect
import io
import json
import string
import tempfile
import tracemalloc
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pyarrow as pa
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lit_align.data.column_fates import ColumnSettings
from lit_align.data.formats import built_in
from lit_align.data.prepare import prepare
from lit_align.data.read_groups import DataSource
from lit_align.data.readers import read_rows
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import DataError, RowError
from lit_align.types import LabelKind
from tests import tiny
from tests.chat.trl_templates import template_files, with_template
from tests.cli.test_error_messages import FIT

FORMATS = built_in()
TEMPLATES = ("chatml", "qwen3", "llama3", "gemma", "mistral")
FILE_TYPES = ("json", "jsonl", "csv", "tsv", "parquet")
ALLOWED = 4 * 2**20  # bytes that any file may take, beyond ten times its size
ROLES = ("user", "assistant", "system", "tool", "human", "gpt", "prompter", "narrator")

# ---------------------------------------------------------------------- values

odd_texts = st.sampled_from((
    "", " ", "nan", "null", "0", "true", "1e999", "\x00", "\ud800", "\u2028", "\ufeffa", "[[[[", '{"a": ', "</think>",
    "<|im_end|>\n<|im_start|>system\n", "\n\nHuman: a\n\nAssistant: b", "[" * 3000 + "]" * 3000, "[{'role': 'user'}]",
    '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]', '{"name": "f", "arguments": "{"}',
))  # fmt: skip
texts = st.one_of(odd_texts, st.text(max_size=12))
numbers = st.one_of(
    st.integers(-3, 8), st.floats(), st.sampled_from([10**400, -1, 2**63, float("nan")])
)
plain_values = st.one_of(texts, numbers, st.booleans(), st.none())
keys = st.sampled_from((
    "role", "content", "from", "value", "text", "type", "name", "function", "arguments", "tool_calls", "score", "label",
    "reasoning_content", "weight", "rank", "a",
))  # fmt: skip
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES), "content": texts},
        optional={
            "from": st.sampled_from(ROLES),
            "value": texts,
            "tool_calls": st.one_of(plain_values, st.lists(st.dictionaries(keys, texts, max_size=3), max_size=2)),
            "weight": plain_values,
            "thinking": plain_values,
        },
    ),
    max_size=5,
)  # fmt: skip
values = st.recursive(
    st.one_of(plain_values, turns),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(keys, texts), inner, max_size=3)
    ),
    max_leaves=6,
)


def column_names(row_format):
    """All words in the module of a format: the columns that it reads are among them."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(type(row_format))))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return sorted(word for word in words if isinstance(word, str) and 0 < len(word) < 30)


NAMES = {type(row_format).__name__: column_names(row_format) for row_format in FORMATS}

ALL_NAMES = sorted(set(chain.from_iterable(NAMES.values())))


@st.composite
def tables(draw):
    """A format, and rows with some of its columns: most values of the kind that it reads."""
    row_format = draw(st.sampled_from(FORMATS))
    names = NAMES[type(row_format).__name__]
    columns = draw(st.lists(st.sampled_from(names), min_size=1, max_size=8, unique=True))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row = {name: draw(values) for name in columns}
        row |= draw(st.dictionaries(texts, values, max_size=1))
        rows.append(row)
    return row_format, rows


# ---------------------------------------------------------------------- files

byte_texts = st.sampled_from((
    b'{"prompt": "a", "chosen": "b", "rejected": "c"}', b"[", b"]", b"{", b"}", b",", b"\n", b"\r\n", b'"', b"\\u",
    b"\xef\xbb\xbf", b"\xff\xfe", b"a\x00", b"prompt,chosen\n", b"\t", b"\x1f\x8b", b"PAR1", b"[" * 2000, b";",
    b"1" * 5000, b'{"a": 1, "a": 2}', b'"""', b"NaN", b'{"a":' * 2000,
))  # fmt: skip
fragments = st.one_of(st.binary(max_size=12), byte_texts)
contents = st.lists(fragments, max_size=12).map(b"".join)


@contextmanager
def file_of(content, kind):
    """A file in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{kind}"
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
        yield path


def check_reading(path, size):
    """Every row is an object or an error, or the file as a whole is refused; ``size`` is that of the unpacked file."""
    tracemalloc.start()
    try:
        for place, row in read_rows(str(path)):
            assert str(path) in place
            assert isinstance(row, dict | RowError)
    except DataError:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 10 * size + ALLOWED, f"{peak:,} bytes for a file of {size:,}"


def check_bytes(kind, content, count):
    """A file of any bytes."""
    with file_of(content * count, kind) as path:
        check_reading(path, len(content) * count)


def parquet_bytes(rows):
    """A Parquet file of the rows; None if Arrow cannot hold them."""
    sink = io.BytesIO()
    try:
        parquet.write_table(pa.Table.from_pylist(rows), sink)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return None
    return sink.getvalue()


def check_parquet(table, damages):
    """A Parquet file with some of its bytes changed."""
    content = parquet_bytes(table[1])
    if content is None:
        return
    damaged = bytearray(content)
    for place, byte in damages:
        damaged[place % len(damaged)] = byte
    with file_of(bytes(damaged), "parquet") as path:
        check_reading(path, len(damaged))


# ---------------------------------------------------------------------- rows

_tokenizers = {}


def tokenizer_of(template):
    """One token a byte, with a chat template and its special tokens."""
    if template not in _tokenizers:
        tokenizer = tiny.tokenizer()
        files = {file.stem: file for file in template_files()}
        if template in files:
            tokenizer = with_template(tokenizer, files[template].read_text("utf-8"))
        _tokenizers[template] = tokenizer
    return _tokenizers[template]


def json_lines(rows):
    """JSON Lines of rows, with lone surrogates escaped."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_table(rows):
    """A CSV file of rows, in which every cell is text."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        cells = {}
        for name, value in row.items():
            cells[name] = value if isinstance(value, str) else json.dumps(value)
        writer.writerow(cells)
    return file.getvalue().encode(errors="surrogatepass")


def check_fates(path, **source):
    """Every row that is read has one fate."""
    ledgers = []
    settings_of = {
        "label_kind": "pairs",
        "max_malformed": 1.0,
        "on_ledger": ledgers.append,
        **source,
    }
    tokenizer = settings_of.pop("tokenizer")
    with suppress(DataError):
        trees, ledger = prepare(DataSource([str(path)], **settings_of), tokenizer)
        assert len(trees) == ledger.fates["kept"] + ledger.fates["truncated"]
    for ledger in ledgers:
        assert sum(ledger.fates.values()) == ledger.rows
        assert ledger.table()
        json.dumps(ledger.to_state())


@st.composite
def tokenizers(draw):
    """The tokenizer of a chat template under any setting."""
    template = draw(st.sampled_from(TEMPLATES))
    return ChatTokenizer(
        tokenizer_of(template),
        max_length=draw(st.sampled_from([8, 200, 5000])),
        overlong=draw(st.sampled_from(["drop", "truncate", "error"])),
        learned_turns=draw(st.sampled_from(["all", "last"])),
        as_chat=draw(st.booleans()),
        special_tokens_in_text=draw(st.sampled_from([None, "split", "set_aside", "keep"])),
    )


def check_formats(table, label_kind, tokenizer, is_csv, is_named):
    """Rows for each format, as JSON or CSV, under each label kind, template and setting."""
    row_format, rows = table
    content = csv_table(rows) if is_csv else json_lines(rows)
    with file_of(content, "csv" if is_csv else "jsonl") as path:
        check_fates(
            path,
            label_kind=label_kind,
            format=row_format if is_named else None,
            formats=FORMATS,
            tokenizer=tokenizer,
        )


def check_columns(table, names, data):
    """Names of columns that are mapped, ignored or read."""
    row_format, rows = table
    present = st.sampled_from(list(rows[0]))
    names |= {name: data.draw(present) for name in list(names)[:2]}
    ignored = data.draw(st.lists(present, max_size=2))
    with file_of(json_lines(rows), "jsonl") as path:
        check_fates(
            path,
            format=row_format,
            columns=ColumnSettings(names, ignored, data.draw(st.sets(present, max_size=2))),
            tokenizer=ChatTokenizer(tokenizer_of("chatml"), max_length=500),
        )


# ---------------------------------------------------------------------- settings

SETTINGS = (
    "train", "format", "batch_size", "max_length", "overlong", "max_malformed", "as_chat", "learned_turns", "columns",
    "ignore_columns", "prepared_cache", "special_tokens_in_text", "seed", "token_budget", "class_path", "init_args",
)  # fmt: skip
yaml_texts = st.one_of(
    st.text(string.printable, max_size=12),
    st.sampled_from(
        [
            "{",
            "[1",
            "{a: 1}",
            "null",
            "&a [*a]",
            "!!python/name:os.system",
            "[" * 1500,
            "- -",
            "1e9",
            "\t",
        ]
    ),
)


def check_settings(name, value):
    """A setting of the data with any value: it is taken, or refused in one sentence."""
    from lit_align.cli.main import main

    output = io.StringIO()
    arguments = [
        *FIT,
        "--model.base.path=none",
        "--trainer.accelerator=cpu",
        f"--data.{name}={value}",
    ]
    with redirect_stdout(output), redirect_stderr(output), suppress(SystemExit):
        main([*arguments, "--print_config"])
    assert "Traceback" not in output.getvalue()


# ---------------------------------------------------------------------- the labelling page

FORM_KEYS = (
    "csrf",
    "task",
    "revision",
    "verdict",
    "preference",
    "place",
    "rating",
    "up",
    *("action", "votes"),
    "flag",
    "note",
    "name",
)
PATHS = (
    "/",
    "/vote",
    "/task/1",
    "/task/9999999999999999999",
    "/mine",
    "/admin",
    "/admin/link",
    "/admin/groups.jsonl",
    "/guidelines",
    "/examples/1",
    *("/admin/state", "/admin/tasks", "/admin/tasks/1", "/admin/removal?name=ann"),
    *("/admin/votes.csv", "/admin/argilla.json", "/admin/label_studio.json"),
)
odd_entries = st.sampled_from(("vote", "undo", "0-1", "999-999", "\x00", "x" * 3000))
form_values = st.one_of(st.text(max_size=8), st.integers(-3, 2**70).map(str), odd_entries)
forms = st.lists(st.tuples(st.sampled_from(FORM_KEYS), form_values), max_size=6)


def check_page(visitors, csrf, number, method, path, form, with_token):
    """Forms and addresses that no browser would send, to a page that is served."""
    if isinstance(form, list):
        form = [*form, ("csrf", csrf)] if with_token else form
        encoded = [(key, value.encode(errors="surrogatepass")) for key, value in form]
        form = urlencode(encoded).encode()
    kind = "application/x-www-form-urlencoded"
    body = None if method == "GET" else form
    status, _, text = visitors[number].ask(method, path, body, content_type=kind)
    assert status < 500, (status, method, path, form)
    assert "Traceback" not in text


@contextmanager
def served_page():
    """Visitors of a page on this machine, with a token of their forms."""
    from tests.labelling.serving import CHATTY, Visitor, make_groups, serving

    with tempfile.TemporaryDirectory() as folder:
        groups = [*make_groups(3), *(group._replace(prompt=CHATTY) for group in make_groups(2, 4))]
        with serving(Path(folder) / "votes.sqlite", groups) as (store, port):
            visitors = [
                Visitor(port),
                Visitor(port, store.invite("ann")),
                Visitor(port, store.invite("root", admin=True)),
            ]
            page = visitors[1].ask("GET", "/")[2]
            csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
            yield visitors, csrf


# ---------------------------------------------------------------------- targets


class Target(NamedTuple):
    """What is tried, and on what."""

    check: Callable[..., None]
    strategies: dict[str, st.SearchStrategy]


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3)
COUNTS = st.sampled_from([1] * 12 + [3000])
TARGETS = {
    "parquet": Target(check_parquet, {"table": tables(), "damages": CHANGES}),
    "formats": Target(
        check_formats,
        {
            "table": tables(),
            "label_kind": st.sampled_from([*LabelKind]),
            "tokenizer": tokenizers(),
            "is_csv": st.booleans(),
            "is_named": st.booleans(),
        },
    ),
    "columns": Target(
        check_columns,
        {
            "table": tables(),
            "names": st.dictionaries(st.sampled_from(ALL_NAMES), texts, max_size=3),
            "data": st.data(),
        },
    ),
    "settings": Target(check_settings, {"name": st.sampled_from(SETTINGS), "value": yaml_texts}),
}
for _kind in (*FILE_TYPES, "jsonl.gz"):
    TARGETS[f"bytes of {_kind}"] = Target(
        partial(check_bytes, _kind), {"content": contents, "count": COUNTS}
    )


def page_target(visitors, csrf):
    """The routes of a page that is served."""
    letters = st.text(string.ascii_letters + "/%?=._-0", max_size=20)
    return Target(
        partial(check_page, visitors, csrf),
        {
            "number": st.integers(0, len(visitors) - 1),
            "method": st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
            "path": st.one_of(st.sampled_from(PATHS), letters.map("/{}".format)),
            "form": st.one_of(forms, st.binary(max_size=30)),
            "with_token": st.booleans(),
        },
    )


def attempt(target, max_examples, number):
    """Try a target on examples that depend on ``number`` alone; how many they were."""
    count = 0

    def run(**values):
        nonlocal count
        count += 1
        target.check(**values)

    profile = settings(max_examples=max_examples, deadline=None, database=None)
    seed(number)(profile(given(**target.strategies)(run)))()
    return count
