"""LoRA adapters (policy, critic, reward, reference) sharing one frozen base model."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lit_align.compat.packed_experts import packed_weights
from lit_align.compat.peft import adapter_layers, parameter_belongs_to, switch_adapter
from lit_align.compat.quant_states import quant_state
from lit_align.errors import ModelError
from lit_align.models.adapters import adapter_state, set_adapter_state
from lit_align.models.fused import Fusion, fuse
from lit_align.models.heads import ScoreHead
from lit_align.models.initial_adapter import initial_adapter
from lit_align.models.inventory import Inventory
from lit_align.models.layers import copy_without_weights, read_layers
from lit_align.models.lora import Lora
from lit_align.models.lora_targets import adapted_names, adapting, portable_config, unwrapped_name

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

    from lit_align.compat.transformers_types import PreTrainedModel
    from lit_align.models.load import Base

NO_HEADS: Mapping[str, int] = MappingProxyType({})


class AdapterSet(nn.Module):
    """LoRA adapters (policy, critic, reward, reference) sharing one frozen base model.

    A role is the adapter's name: policy, reference, critic, reward... The reference is the base itself, or with
    ``init_adapter`` a frozen copy of that adapter, from which the trained adapters start too: before the first step
    policy and reference agree exactly.

    Args:
        base_model: a model from `load_model`.
        lora: settings of the trained adapters.
        init_adapter: folder of an adapter that was trained on the same base.
        seed: of the initial weights, different for each role; the global generator is left alone.
        gradient_checkpointing: recompute each layer's activations in the backward pass, in train mode; half as much
            computing again, for much less memory.
        trained_roles: the roles to train.
        head_sizes: outputs of each role's score head; a role that is not named has no head and generates text.

    Attributes:
        active: the role whose adapter the base computes with.
        fusion: which layers compute in a fused form.
        heads: score heads, by role.
        num_loads: how often the weights of each role's adapter were loaded.

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
        head_sizes: Mapping[str, int] = NO_HEADS,
    ) -> None:
        super().__init__()
        self.base: str = base_model.name_or_path or type(base_model).__name__
        self.loaded_as: Base | None = getattr(base_model, "loaded_as", None)
        self.trained_roles = tuple(trained_roles)
        self.heads = nn.ModuleDict()
        self.num_loads: Counter[str] = Counter()
        self.peft: PeftModel
        self.fusion: Fusion
        self._has_adapter = dict.fromkeys(self.trained_roles, True)
        self._has_adapter["reference"] = init_adapter is not None
        whole_model = copy_without_weights(base_model)
        self._base_layers = read_layers(whole_model)
        self._base_numbers = sum(weight.numel() for weight in whole_model.parameters())
        config, init_weights = initial_adapter(
            self.base, self.revision, self._base_layers, lora, init_adapter
        )
        self._create_adapters(base_model, config, head_sizes, seed)
        if init_weights is not None:
            for role in self.names:
                self.load_weights(role, init_weights, str(init_adapter))
        self._update_layers()
        self.active = ""
        self._switch_to(self.trained_roles[0])
        self.eval()
        if gradient_checkpointing:
            _enable_checkpointing(self)

    def _create_adapters(
        self,
        base_model: PreTrainedModel,
        config: LoraConfig,
        head_sizes: Mapping[str, int],
        seed: int,
    ) -> None:
        from peft import get_peft_model

        devices = {weight.device for weight in base_model.parameters()}
        cuda_devices = sorted(device.index for device in devices if device.type == "cuda")
        with torch.random.fork_rng(cuda_devices):
            for number, role in enumerate(self.trained_roles):
                torch.manual_seed(seed + number)
                if number == 0:
                    with adapting(self.base, config, self._base_layers, base_model):
                        self.peft = get_peft_model(base_model, config, adapter_name=role)
                else:
                    self._add_adapter(role, copy.deepcopy(config))
                if role in head_sizes:
                    head = ScoreHead(self.hidden_size, head_sizes[role])
                    self.heads[role] = head.to(self.model.device)
            if self._has_adapter["reference"]:
                frozen = copy.deepcopy(config)
                frozen.lora_dropout = 0.0
                self._add_adapter("reference", frozen)

    def _add_adapter(self, role: str, config: LoraConfig) -> None:
        with adapting(self.base, config, self._base_layers, self.peft):
            self.peft.add_adapter(role, config)

    @property
    def model(self) -> PreTrainedModel:
        """The base model; it computes with the active adapter."""
        return cast("PreTrainedModel", self.peft.get_base_model())

    @property
    def revision(self) -> str | None:
        """The base's branch, tag or commit on the hub."""
        return None if self.loaded_as is None else self.loaded_as.revision

    @property
    def hidden_size(self) -> int:
        """Width of the base model's hidden states."""
        size: int = self.model.config.get_text_config().hidden_size
        return size

    @property
    def names(self) -> tuple[str, ...]:
        """All roles, the reference included."""
        return tuple(self._has_adapter)

    def head(self, role: str) -> ScoreHead:
        """The score head of a role.

        Raises:
            ModelError: if it has none.
        """
        self._check_role(role)
        if role not in self.heads:
            raise ModelError(
                f"the {role} has no head and gives no scores; attach the folder of a reward model"
            )
        return cast("ScoreHead", self.heads[role])

    def has_adapter(self, role: str) -> bool:
        """Whether a role has an adapter; without one it is the base itself."""
        self._check_role(role)
        return self._has_adapter[role]

    def activate(
        self, role: str, training: bool | None = None
    ) -> AbstractContextManager[PreTrainedModel]:
        """A context in which a role's adapter is active; it yields the model and restores the previous state.

        Args:
            role: the adapter's name.
            training: train or eval mode; None leaves the mode as it is.

        Raises:
            ModelError: if there is no such role.
        """
        self._check_role(role)
        return _ActiveAdapter(self, role, training)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters of the trained adapters and heads, by name."""
        named = self.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def trainable_by_role(self) -> list[list[nn.Parameter]]:
        """Trained parameters of each trained adapter and its head."""
        parameters = self.trainable()
        return [
            [weight for name, weight in parameters.items() if f".{role}." in name]
            for role in self.trained_roles
        ]

    def parameters_for(self, role: str) -> list[nn.Parameter]:
        """Parameters of a role's adapter and head, whether they are trained or not."""
        named = self.peft.named_parameters()
        parameters = [weight for name, weight in named if parameter_belongs_to(name, role)]
        if role in self.heads:
            parameters.extend(self.heads[role].parameters())
        return parameters

    def lora_config(self, role: str) -> LoraConfig:
        """PEFT's settings of a role's adapter.

        Raises:
            ModelError: if the role has no adapter.
        """
        if not self.has_adapter(role):
            raise ModelError(
                f"the {role} is {self.base!r} itself, without an adapter to save or load; use the policy's"
            )
        return cast("LoraConfig", self.peft.peft_config[role])

    def portable_config(self, role: str) -> LoraConfig:
        """PEFT's settings of a role's adapter, by which other programs adapt the same layers.

        Raises:
            ModelError: if the role has no adapter.
        """
        config = self.lora_config(role)
        return portable_config(
            config, self.model, self._base_layers, adapted_names(self.model, role)
        )

    def needs_whole_base(self, role: str) -> bool:
        """Whether PEFT can put a role's saved adapter only on a base that is not in 4 bits, as it was in training."""
        parameters = set(self.portable_config(role).target_parameters or ())
        renamed = parameters - set(self.lora_config(role).target_parameters or ())
        return bool(renamed and self.inventory().four_bit)

    def adapter_weights(self, role: str) -> dict[str, Tensor]:
        """The weights of a role's adapter, by PEFT's names."""
        return adapter_state(self.peft, role)

    def inventory(self) -> Inventory:
        """What became of each layer of the base: read from the layers as they are."""
        four_bit = []
        for packed in packed_weights(self.model):
            four_bit.append(f"{unwrapped_name(packed.path)}.{packed.name}")
        for name, module in self.model.named_modules():
            if quant_state(module) is not None:
                four_bit.append(unwrapped_name(name))
        return Inventory(
            self._base_layers,
            frozenset(adapted_names(self.model, self.trained_roles[0])),
            frozenset(four_bit),
            self._base_numbers,
            self.lora_config(self.trained_roles[0]).r,
            self.model.dtype.itemsize,
        )

    def copy_weights(self, role: str) -> dict[str, Tensor]:
        """Copies of a role's adapter weights, by name; empty if the role is the base itself."""
        if not self.has_adapter(role):
            return {}
        weights = self.adapter_weights(role)
        return {name: weight.detach().clone() for name, weight in weights.items()}

    def set_weights(self, role: str, weights: Mapping[str, Tensor]) -> None:
        """Restore weights that `copy_weights` returned; empty ones change nothing, others create a missing adapter."""
        if not weights:
            return
        if not self.has_adapter(role):
            self._add_identity_adapter(role, self.trained_roles[0])
        self.load_weights(role, weights, "the checkpoint")

    def load_weights(self, role: str, weights: Mapping[str, Tensor], source: str) -> None:
        """Load weights from ``source`` into a role that has an adapter.

        Raises:
            ModelError: if they do not fit the adapter.
        """
        self.num_loads[role] += 1
        set_adapter_state(self.peft, role, weights, f"the adapter in {source!r}", self.base)

    def interpolate(self, role: str, target: str, weight: float = 1.0) -> None:
        """Move a frozen role's adapter towards another's by linear interpolation; weight 1 copies it.

        A role that was the base itself gets an adapter, which starts from the identity.
        """
        target_weights = self.adapter_weights(target)
        if not self.has_adapter(role):
            self._add_identity_adapter(role, target)
        moved = self.adapter_weights(role)
        for name, value in target_weights.items():
            moved[name] = moved[name].lerp(value.detach(), weight)
        self.load_weights(role, moved, role)

    def add_frozen(self, role: str, config: LoraConfig) -> None:
        """Add an adapter that is not trained."""
        config.lora_dropout = 0.0
        config.inference_mode = False
        training, active = self.peft.training, self.active
        with torch.random.fork_rng():
            self._add_adapter(role, config)
        self._has_adapter[role] = True
        self._update_layers()
        self.active = ""  # PEFT has switched the layers to the new adapter
        self._switch_to(active)
        self.peft.train(training)

    def _add_identity_adapter(self, role: str, like: str) -> None:
        """Add a frozen adapter with the settings of another; it starts by changing nothing."""
        weights = self.adapter_weights(like)
        self.add_frozen(role, copy.deepcopy(self.lora_config(like)))
        for name, weight in weights.items():
            if "lora_B" in name:
                weights[name] = torch.zeros_like(weight)
        self.load_weights(role, weights, role)

    def _check_role(self, role: str) -> None:
        if role not in self._has_adapter:
            raise ModelError(f"no role is called {role!r}; there are {' and '.join(self.names)}")

    def _update_layers(self) -> None:
        """Find the layers with adapters, fuse them, and set which parameters are trained; PEFT decides otherwise."""
        self._layers = adapter_layers(self.peft)
        self.fusion = fuse(self.peft, self.names)
        for name, parameter in self.peft.named_parameters():
            trained = any(parameter_belongs_to(name, role) for role in self.trained_roles)
            parameter.requires_grad_(trained)

    def _switch_to(self, role: str) -> None:
        if role != self.active:
            self.active = role
            switch_adapter(self._layers, role if self._has_adapter[role] else None)


@dataclass
class _ActiveAdapter(AbstractContextManager["PreTrainedModel"]):
    """Activates a role; can be entered again, because a retained graph may be run backward twice."""

    adapters: AdapterSet
    role: str
    training: bool | None
    previous: list[tuple[str, bool]] = field(default_factory=list)

    def __enter__(self) -> PreTrainedModel:
        self.previous.append((self.adapters.active, self.adapters.peft.training))
        self._set(self.role, self.training)
        return self.adapters.model

    def __exit__(self, *_: object) -> None:
        role, training = self.previous.pop()
        self._set(role, None if self.training is None else training)

    def _set(self, role: str, training: bool | None) -> None:
        self.adapters._switch_to(role)
        if training is not None and training != self.adapters.peft.training:
            self.adapters.peft.train(training)


def _enable_checkpointing(adapters: AdapterSet) -> None:
    """Recompute activations in the backward pass, with the role and mode of the forward pass."""

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        recomputation = _ActiveAdapter(adapters, adapters.active, adapters.peft.training)
        return nullcontext(), recomputation

    require_checkpointing(adapters.model, adapters.base)
    adapters.model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    # Only reentrant checkpointing needs a gradient at the embeddings, which transformers has just required.
    adapters.model.disable_input_require_grads()  # type: ignore[no-untyped-call]


def require_checkpointing(model: PreTrainedModel, base: str) -> None:
    """Refuse a model whose activations cannot be recomputed.

    Raises:
        ModelError: naming ``base`` and the setting.
    """
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{base!r} does not support gradient checkpointing; set gradient_checkpointing to false"
        )
