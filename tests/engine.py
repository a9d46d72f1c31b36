"""A second process of a real model that speaks vLLM's calls: PEFT loads its adapters, our own sampler samples."""

import json
import multiprocessing
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from lit_align.models.generate import sample
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.samplers.served import SEEDS_APART

SLOW = 20.0  # seconds; no test waits as long


def token_noise(scale, vocabulary):
    """What an engine with other numbers adds to the logit of each token: plus or minus ``scale`` nats."""
    return scale * (1.0 - 2.0 * (torch.arange(vocabulary) // 2 % 2))


class Engine(ThreadingHTTPServer):
    """Answers from a base and the adapters that it was told to load.

    Args:
        base: folder of the model.
        settings: ``name``, ``root`` and ``max_lora_rank`` as told to clients; ``noise``, the scale of
            `token_noise`; ``raw``, whether log-probabilities are those at temperature 1; ``rounding`` and ``peak``,
            what each call changes of logits, and what token 7 has on top; ``key``, the API key that paths which start
            with ``key_paths`` need.
    """

    daemon_threads = True

    def __init__(self, base, **settings):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.settings = {
            "name": base,
            "root": base,
            "max_lora_rank": 16,
            "noise": 0.0,
            "raw": False,
            "rounding": 0.0,
            "peak": 0.0,
            "key": "",
            "key_paths": "/",
        }
        self.settings.update(settings)
        base = Base(base, "none", "float32")
        self.model, self.tokenizer = load_model(base), load_tokenizer(base)
        self.peft, self.paths, self.lock = None, {}, threading.Lock()
        self.slots, self.free_slots = {}, defaultdict(list)
        self.faults, self.calls, self.num_calls = [], Counter(), 0
        self.model.get_output_embeddings().register_forward_hook(
            lambda head, given, logits: (
                logits
                + token_noise(self.settings["noise"], logits.shape[-1])
                + self.jitter(logits.shape[-1])
            )
        )

    def jitter(self, vocabulary):
        """Rounding that is another in each call, and much on one token."""
        self.num_calls += 1
        rounding = self.settings["rounding"] * torch.sin(torch.arange(vocabulary) + self.num_calls)
        rounding[7] += self.settings["peak"]
        return rounding

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""

    def load(self, name, path):
        from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict

        if name in self.paths:
            return 400, f"The lora adapter '{name}' has already been loaded."
        if not Path(path, "adapter_config.json").is_file():
            return 404, f"No adapter found for {path}"
        rank, limit = PeftConfig.from_pretrained(path).r, self.settings["max_lora_rank"]
        if rank > limit:
            return 500, f"LoRA rank {rank} is greater than max_lora_rank {limit}."
        kind = Path(path, "adapter_config.json").read_text()
        if self.free_slots[kind]:  # ten times as fast as a new one
            slot = self.free_slots[kind].pop()
            set_peft_model_state_dict(self.peft, load_peft_weights(path), adapter_name=slot)
        elif self.peft is None:
            slot = "slot0"
            self.peft = PeftModel.from_pretrained(self.model, path, adapter_name=slot)
        else:
            slot = f"slot{len(self.peft.peft_config)}"
            self.peft.load_adapter(path, adapter_name=slot)
        self.paths[name], self.slots[name] = path, (slot, kind)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name):
        if self.paths.pop(name, None) is None:
            return 404, f"The lora adapter '{name}' cannot be found."
        slot, kind = self.slots.pop(name)
        self.free_slots[kind].append(slot)
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def complete(self, asked):
        name = asked["model"]
        if name not in (self.settings["name"], *self.paths):
            return 404, f"The model `{name}` does not exist."
        if self.peft is None:
            return 200, self.completions(asked)
        if name in self.paths:
            self.peft.set_adapter(self.slots[name][0])
            return 200, self.completions(asked)
        with self.peft.disable_adapter():
            return 200, self.completions(asked)

    def completions(self, asked):
        temperature = asked["temperature"]
        if "prompt_logprobs" in asked:
            return self.prompt_logps(asked)
        rows = sample(
            self.model, self.tokenizer, [asked["prompt"]], max_new_tokens=asked["max_tokens"],
            temperature=temperature, num_generations=asked.get("n", 1), seed=0,
            prompt_indices=[asked["seed"] // SEEDS_APART], batch_size=asked.get("n", 1),
        )  # fmt: skip
        with torch.no_grad():
            logits = self.model(torch.tensor([asked["prompt"]])).logits[0, -1]
        scale = 1.0 if self.settings["raw"] or not temperature else temperature
        top = (logits / scale).log_softmax(-1).topk(asked["logprobs"])
        shown = dict(zip(map(str, top.indices.tolist()), top.values.tolist(), strict=True))
        choices = [
            {
                "index": index,
                "text": self.tokenizer.decode(completion.ids),
                "token_ids": completion.ids,
                "prompt_token_ids": asked["prompt"],
                "logprobs": {
                    "token_logprobs": completion.logps,
                    "top_logprobs": [shown, *({} for _ in completion.ids[1:])],
                },
                "finish_reason": "stop" if completion.ended else "length",
            }
            for index, completion in enumerate(rows[0])
        ]
        return {"object": "text_completion", "model": asked["model"], "choices": choices}

    def prompt_logps(self, asked):
        """The log-probability of each token of the prompt, and one token after it."""
        ids = asked["prompt"]
        with torch.no_grad():
            logps = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        entries = [
            {str(token): {"logprob": logps[place, token].item(), "rank": 1}}
            for place, token in enumerate(ids[1:])
        ]
        choice = {"index": 0, "text": "", "prompt_logprobs": [None, *entries], "logprobs": None}
        return {"object": "text_completion", "model": asked["model"], "choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait until its headers are acknowledged

    def do_GET(self):
        server = self.server
        if self.path == "/calls":
            return self._send(
                200, {f"{model} {seed}": n for (model, seed), n in server.calls.items()}
            )
        if self._lacks_key():
            return None
        if self.path != "/v1/models":
            return self._send(404, "Not Found")
        cards = [
            {
                "id": server.settings["name"],
                "root": server.settings["root"],
                "parent": None,
                "max_model_len": 200,
            }
        ]
        for name, path in server.paths.items():
            cards.append({"id": name, "root": path, "parent": server.settings["name"]})
        return self._send(200, {"object": "list", "data": cards})

    def do_POST(self):
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/plan":
            server.settings.update(asked.get("settings", {}))
            server.faults = list(asked.get("faults", server.faults))
            return self._send(200, {})
        if self._lacks_key():
            return None
        if self.path == "/tokenize":
            ids = server.tokenizer(
                asked["prompt"], add_special_tokens=asked["add_special_tokens"]
            ).input_ids
            return self._send(200, {"count": len(ids), "max_model_len": 200, "tokens": ids})
        if self.path == "/detokenize":
            return self._send(200, {"prompt": server.tokenizer.decode(asked["tokens"])})
        with server.lock:
            if self.path == "/v1/load_lora_adapter":
                return self._send(*server.load(asked["lora_name"], asked["lora_path"]), plain=True)
            if self.path == "/v1/unload_lora_adapter":
                return self._send(*server.unload(asked["lora_name"]), plain=True)
            if self.path != "/v1/completions":
                return self._send(404, "Not Found")
            server.calls[asked["model"], asked["seed"]] += 1
            status, answer = server.complete(asked)
            fault = server.faults.pop(0) if server.faults else None
        return self._faulty(fault, status, answer)

    def _faulty(self, fault, status, answer):
        if fault == "slow":
            time.sleep(SLOW)
        if isinstance(fault, int):
            return self._send(fault, "as planned")
        if fault == "fewer":
            answer["choices"].pop()
        if fault == "stale":
            answer["model"] = "lit-align-older"
        if fault == "other prompt":
            answer["choices"][0]["prompt_token_ids"] = [1]
        if fault == "no prompt":
            answer["choices"][0]["prompt_logprobs"] = None
        if fault == "no numbers":
            answer["choices"][0]["logprobs"] = None
        if fault == "cut":
            choice = answer["choices"][0]
            choice["token_ids"], choice["finish_reason"] = choice["token_ids"][:1], "length"
            choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][:1]
        return self._send(status, answer, half=fault == "half")

    def _send(self, status, answer, plain=False, half=False):
        if status != 200:
            answer = {"error": {"message": answer, "type": "as planned", "code": status}}
        body = answer.encode() if plain and status == 200 else json.dumps(answer).encode()
        body = body[: len(body) // 2] if half else body
        self.send_response(status)
        if not (plain and status == 200):
            self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _lacks_key(self):
        """Whether the call needs a key that it does not have; it is then answered."""
        key, paths = self.server.settings["key"], self.server.settings["key_paths"]
        if not key or not self.path.startswith(paths):
            return False
        if self.headers["authorization"] == f"Bearer {key}":
            return False
        self._send(401, f"no such key: {self.headers['authorization']}")
        return True

    def log_message(self, *_):
        """Silence."""


class Running:
    """A server in a process of its own.

    Args:
        base: folder of the model.
        settings: as of `Engine`.
    """

    def __init__(self, base, **settings):
        context = multiprocessing.get_context("fork")
        ports, port = context.Pipe(duplex=False)
        self.process = context.Process(target=_serve, args=(port, str(base), settings), daemon=True)
        self.process.start()
        self.base = str(base)
        self.root = f"http://127.0.0.1:{ports.recv()}"
        self.url = f"{self.root}/v1"

    def plan(self, *faults, **settings):
        """What happens to the next completions, and other settings."""
        self._ask("/plan", {"faults": list(faults), "settings": settings})

    @property
    def calls(self):
        """How often each prompt was completed, by ``model seed``."""
        return self._ask("/calls")

    @property
    def adapters(self):
        """Names of the adapters that are loaded."""
        return [card["id"] for card in self._ask("/v1/models")["data"] if card["parent"]]

    def kill(self):
        self.process.kill()
        self.process.join()

    def _ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.root + path, data)) as answer:
            return json.load(answer)


@contextmanager
def running(base, **settings):
    """A server that ends with the block."""
    server = Running(base, **settings)
    try:
        yield server
    finally:
        server.kill()


def _serve(port, base, settings):
    torch.set_num_threads(1)
    server = Engine(base, **settings)
    port.send(server.server_port)
    server.serve_forever()
