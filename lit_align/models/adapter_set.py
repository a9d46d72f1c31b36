"""One frozen base; every role is an adapter on it, with a head if it gives scores."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from lit_align.errors import ModelError
from lit_align.models.adapters import read_adapter, write_adapter, written_targets
from lit_align.models.heads import FILE, ScoreHead

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

    from lit_align.models.load import Base

NONE: Mapping[str, int] = MappingProxyType({})


@dataclass
class Lora:
    """Low-rank adapters (Hu et al., 2021, https://arxiv.org/abs/2106.09685): what a role learns.

    A role that starts from a saved adapter takes over its r, alpha and targets.

    Args:
        r: rank; parameters and optimiser state grow with it.
        alpha: the product of the two low-rank matrices is scaled by alpha / r.
        dropout: on what goes into an adapter, while training.
        targets: linear layers that get an adapter: names, a pattern of their whole names, or all-linear for all but the
            head.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"


class AdapterSet(nn.Module):
    """One frozen base that plays what is trained, such as ``policy``, and ``reference`` (frozen).

    The reference is the base itself, or with ``init_adapter`` a frozen copy of that adapter, from which what is trained starts
    too: before the first step policy and reference agree exactly.

    PEFT's own switches are not used: ``set_adapter`` moves ``requires_grad`` along, and a role switched between forward
    and a checkpointed backward makes the gradient wrong without an error.

    Args:
        base_model: what `load_model` returned.
        lora: the adapter of what is trained.
        init_adapter: folder of an adapter that was trained on the same base.
        seed: of the initial weights, each role's its own; the global generator is left alone.
        gradient_checkpointing: recompute each layer's activations in the backward pass, in train mode; half as much computing
            again, for much less memory.
        trains: the roles to train.
        head_sizes: scores that a role gives with a head of its own; a role that is not named speaks.

    Raises:
        ModelError: if the adapter in ``init_adapter`` does not belong to this base, or would change it.
    """

    def __init__(
        self,
        base_model: PreTrainedModel,
        lora: Lora,
        *,
        init_adapter: str | Path | None = None,
        seed: int = 0,
        gradient_checkpointing: bool = True,
        trained_roles: Sequence[str] = ("policy",),
        head_sizes: Mapping[str, int] = NONE,
    ) -> None:
        from peft import LoraConfig, get_peft_model

        super().__init__()
        self.base: str = base_model.name_or_path or type(base_model).__name__
        self.loaded_as: Base | None = getattr(base_model, "loaded_as", None)
        weights = None
        if init_adapter is None:
            config = LoraConfig(
                r=lora.r, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM"
            )
        else:
            config, weights = read_adapter(init_adapter, self.base)
            if (config.r, config.lora_alpha) != (lora.r, lora.alpha):
                warnings.warn(
                    f"the adapter in {str(init_adapter)!r} has r={config.r} and alpha={config.lora_alpha}; "
                    f"lora.r={lora.r} and lora.alpha={lora.alpha} are not used",
                    stacklevel=2,
                )
        config.base_model_name_or_path, config.lora_dropout, config.inference_mode = (
            self.base,
            lora.dropout,
            False,
        )
        devices = sorted(
            {p.device.index for p in base_model.parameters() if p.device.type == "cuda"}
        )
        self.trained_roles = tuple(trained_roles)
        self.heads = nn.ModuleDict()
        with torch.random.fork_rng(devices):
            for number, role in enumerate(self.trained_roles):
                torch.manual_seed(seed + number)
                try:
                    if number:
                        self.peft.add_adapter(role, copy.deepcopy(config))
                    else:
                        self.peft: PeftModel = get_peft_model(base_model, config, adapter_name=role)
                except ValueError as error:
                    raise ModelError(f"cannot put adapters on {self.base!r}: {error}") from error
                if role in head_sizes:
                    width = self.model.config.get_text_config().hidden_size
                    self.heads[role] = ScoreHead(width, head_sizes[role]).to(self.model.device)
            if weights is not None:
                frozen = copy.deepcopy(config)
                frozen.lora_dropout = 0.0
                self.peft.add_adapter("reference", frozen)
        self._adapter: dict[str, str | None] = {role: role for role in self.trained_roles}
        self._adapter["reference"] = None if weights is None else "reference"
        if weights is not None:
            for role in self._adapter:
                self._fill(role, weights, str(init_adapter))
        self._settle()
        self.now = ""
        self._put(self.trained_roles[0])
        self.eval()
        if gradient_checkpointing:
            if not self.model.supports_gradient_checkpointing:
                raise ModelError(
                    f"{self.base!r} cannot recompute its activations; set checkpointing to false"
                )
            self.model.activation_checkpointing_enable(
                {"use_reentrant": False, "context_fn": self._contexts}
            )
            # Only reentrant checkpointing needs a gradient at the embeddings, which transformers has just asked for.
            self.model.disable_input_require_grads()  # type: ignore[no-untyped-call]

    def _settle(self) -> None:
        """Find the layers with adapters, and say which of them are trained: PEFT has views of its own."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [
            module for module in self.peft.modules() if isinstance(module, BaseTunerLayer)
        ]
        for name, parameter in self.peft.named_parameters():
            parameter.requires_grad_(any(_belongs(name, role) for role in self.trained_roles))

    def attach(self, role: str, folder: str | Path) -> None:
        """Let the base play one more, frozen role: a saved adapter, with its head if it has one.

        Raises:
            ModelError: if the role is taken, or the adapter does not belong to this base.
        """
        if role in self._adapter:
            raise ModelError(
                f"there is a role {role!r} already; attach the adapter in {str(folder)!r} under another name"
            )
        config, weights = read_adapter(folder, self.base)
        head = ScoreHead.load(folder) if (Path(folder).expanduser() / FILE).is_file() else None
        width = self.model.config.get_text_config().hidden_size
        if head is not None and head.weight.shape[1] != width:
            raise ModelError(
                f"the head in {str(folder)!r} reads {head.weight.shape[1]} numbers, and {self.base!r} gives {width}; "
                "give the base that it was trained on"
            )
        config.base_model_name_or_path = self.base
        self._add(role, config)
        self._fill(role, weights, str(folder))
        if head is not None:
            self.heads[role] = head.to(self.model.device)

    def _add(self, role: str, config: LoraConfig) -> None:
        """Give a role an adapter that is not trained."""
        config.lora_dropout, config.inference_mode = 0.0, False
        training = self.peft.training
        with torch.random.fork_rng():
            self.peft.add_adapter(role, config)
        self._adapter[role] = role
        self._settle()
        now, self.now = self.now, ""  # PEFT has switched the layers to the new adapter
        self._put(now)
        self.peft.train(training)

    def head(self, role: str) -> ScoreHead:
        """The head of a role that gives scores.

        Raises:
            ModelError: if it gives none.
        """
        self._check(role)
        if role not in self.heads:
            raise ModelError(
                f"the {role} has no head and gives no scores; attach the folder of a reward model"
            )
        return cast("ScoreHead", self.heads[role])

    @property
    def model(self) -> PreTrainedModel:
        """The model underneath, as whoever is playing."""
        return cast("PreTrainedModel", self.peft.get_base_model())

    @property
    def names(self) -> tuple[str, ...]:
        """Who can play."""
        return tuple(self._adapter)

    def activate(
        self, role: str, training: bool | None = None
    ) -> AbstractContextManager[PreTrainedModel]:
        """A context in which the base plays ``role``; it gives the model, and leaves everything as it was before.

        Args:
            role: ``policy`` or ``reference``.
            training: train or eval mode; None keeps the present one.

        Raises:
            ModelError: if there is no such role.
        """
        self._check(role)
        return _Play(self, role, training)

    def trainable(self) -> dict[str, nn.Parameter]:
        """What the optimiser moves: adapters and heads, by name."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def save(
        self, folder: Path, role: str = "policy", provenance: dict[str, Any] | None = None
    ) -> None:
        """Write a role's adapter as an ordinary PEFT folder with ``provenance.json``, and with its head if it has one.

        An older folder is replaced as a whole.

        Raises:
            ModelError: if the role has no adapter.
        """
        config, weights = self._config(role), self._weights(role)
        record = {**(provenance or {}), "role": role, "lora": self.settings(role)}
        head = self.head(role) if role in self.heads else None
        write_adapter(Path(folder), config, weights, record, head)

    def settings(self, role: str) -> dict[str, Any]:
        """A role's r, alpha and targets, as they are and not as they were asked for.

        Raises:
            ModelError: if the role has no adapter.
        """
        config = self._config(role)
        return {"r": config.r, "alpha": config.lora_alpha, "targets": written_targets(config)}

    def load(self, folder: str | Path, role: str = "policy") -> None:
        """Give a role the adapter weights in ``folder``.

        Raises:
            ModelError: if they do not belong to this base or do not fit this adapter.
        """
        _, weights = read_adapter(folder, self.base)
        self._config(role)
        self._fill(role, weights, str(folder))

    def follow(self, role: str, leader: str, share: float = 1.0) -> None:
        """Move a frozen role's adapter towards another's: all the way, or by a share of the way.

        A role that was the base itself gets an adapter of its own, which starts by changing nothing.
        """
        lead = self._weights(leader)
        if self._adapter[role] is None:
            self._add(role, copy.deepcopy(self._config(leader)))
            still = {
                name: torch.zeros_like(w) if "lora_B" in name else w for name, w in lead.items()
            }
            self._fill(role, still, role)
        own = self._weights(role)
        self._fill(role, {name: own[name].lerp(lead[name].detach(), share) for name in lead}, role)

    def weights(self, role: str) -> dict[str, torch.Tensor]:
        """Copies of a role's adapter weights, by name; none if it is the base itself."""
        if self._adapter[role] is None:
            return {}
        return {name: weight.detach().clone() for name, weight in self._weights(role).items()}

    def put(self, role: str, weights: dict[str, torch.Tensor]) -> None:
        """Give a role the adapter weights that `weights` once gave, or none."""
        if weights:
            if self._adapter[role] is None:
                self.interpolate(role, self.trained_roles[0])
            self._fill(role, weights, "the checkpoint")

    def parameters_for(self, role: str) -> list[nn.Parameter]:
        """A role's adapter and head, whether they are trained or not."""
        own = [
            parameter for name, parameter in self.peft.named_parameters() if _belongs(name, role)
        ]
        return own + list(self.heads[role].parameters() if role in self.heads else ())

    def fingerprint(self, role: str) -> str:
        """A name for what ``role`` computes now: it changes with the base's weights or settings and with the adapter's.

        Of the base a few numbers from each weight are looked at, of the adapter all.
        """
        self._check(role)
        unimportant = {"_name_or_path", "transformers_version", "use_cache"}
        settings = {k: v for k, v in self.model.config.to_dict().items() if k not in unimportant}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, parameter in self.peft.named_parameters():
            mine = self._adapter[role] is not None and _belongs(name, str(self._adapter[role]))
            if mine or not any(_belongs(name, str(adapter)) for adapter in self._adapter.values()):
                sample = parameter.detach().flatten()[: None if mine else 64]
                digest.update(f"{self._nameless(name)} {parameter.dtype}".encode())
                digest.update(sample.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]

    def _check(self, role: str) -> None:
        if role not in self._adapter:
            raise ModelError(f"no role is called {role!r}; there are {' and '.join(self._adapter)}")

    def _config(self, role: str) -> LoraConfig:
        self._check(role)
        adapter = self._adapter[role]
        if adapter is None:
            raise ModelError(
                f"the {role} is {self.base!r} itself, without an adapter to save or load; use the policy's"
            )
        return cast("LoraConfig", self.peft.peft_config[adapter])

    def _weights(self, role: str) -> dict[str, torch.Tensor]:
        from peft import get_peft_model_state_dict

        return dict(
            get_peft_model_state_dict(
                self.peft, adapter_name=str(self._adapter[role]), save_embedding_layers=False
            )
        )

    def _fill(self, role: str, weights: dict[str, torch.Tensor], folder: str) -> None:
        from peft import set_peft_model_state_dict

        have = {name: tuple(weight.shape) for name, weight in self._weights(role).items()}
        wrong = [
            n
            for n in {**have, **weights}
            if n not in have or n not in weights or have[n] != tuple(weights[n].shape)
        ]
        if wrong:
            raise ModelError(
                f"the adapter in {folder!r} does not fit {self.base!r}: {len(wrong)} of its weights differ, "
                f"first {wrong[0]!r}; give one with the same r and targets, trained on this base"
            )
        set_peft_model_state_dict(self.peft, weights, adapter_name=str(self._adapter[role]))

    def _nameless(self, name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in self._adapter)

    def _put(self, role: str) -> None:
        if role != self.now:
            self.now, adapter = role, self._adapter[role]
            for layer in self._layers:
                layer._disable_adapters = adapter is None
                if adapter is not None:
                    layer._active_adapter = [adapter]

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """What checkpointing runs a layer in: first as things are, then again as they are now."""
        return nullcontext(), _Play(self, self.now, self.peft.training)


@dataclass
class _Play(AbstractContextManager["PreTrainedModel"]):
    """Can be entered again: a graph that is kept may be run backward twice."""

    adapters: AdapterSet
    role: str
    training: bool | None
    before: list[tuple[str, bool]] = field(default_factory=list)

    def __enter__(self) -> PreTrainedModel:
        self.before.append((self.adapters.now, self.adapters.peft.training))
        self._be(self.role, self.training)
        return self.adapters.model

    def __exit__(self, *_: object) -> None:
        role, training = self.before.pop()
        self._be(role, None if self.training is None else training)

    def _be(self, role: str, training: bool | None) -> None:
        self.adapters._put(role)
        if training is not None and training != self.adapters.peft.training:
            self.adapters.peft.train(training)


def _belongs(name: str, adapter: str) -> bool:
    parts = name.split(".")
    return adapter in parts and any(part.startswith("lora_") for part in parts)
