"""Tables for those who come from LLaMA-Factory and Axolotl: their keys, checked in their sources, and ours."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.coming_from_others import SETTINGS
from lit_align.coming_from_trl import translation

LLAMA_FACTORY = """
quantization_bit quantization_method pure_bf16 mixed_precision infer_dtype flash_attn model_revision lora_rank
lora_target adapter_name_or_path stage pref_loss pref_beta pref_ftx simpo_gamma template reward_model ppo_epochs
dataset dataset_dir val_size eval_dataset cutoff_len model_max_length train_on_prompt mask_history
overwrite_cache tokenized_path device_map max_samples save_dir finetuning_type packing neat_packing
overwrite_output_dir ref_model trust_remote_code preprocessing_num_workers
""".split()  # noqa: SIM905
"""Fields of the classes in its src/llamafactory/hparams at ff6d4d12e, of August 2026."""

AXOLOTL = """
base_model load_in_8bit bf16 fp16 tf32 bfloat16 float16 attn_implementation flash_attention lora_target_modules
lora_target_linear lora_model_dir rl dpo_loss_type dpo_beta rl_beta rpo_alpha simpo_gamma lr lr_scheduler adam_beta1
adam_beta2 adam_epsilon lr_scheduler_kwargs warmup_ratio cosine_min_lr_ratio activation_checkpointing
max_completion_length generate_max_len reward_model reward_funcs epsilon datasets data_files val_set_size
test_datasets sequence_len context_length excess_length_strategy micro_batch_size eval_batch_size field_messages
field_instruction train_on_inputs roles_to_train dataset_prepared_path num_epochs n_gpu device device_map
use_wandb use_mlflow wandb_project wandb_name wandb_entity wandb_run_id wandb_watch wandb_log_model
mlflow_experiment_name early_stopping_patience save_total_limit load_best_model_at_end metric_for_best_model
greater_is_better saves_per_epoch eval_strategy evaluation_strategy evals_per_epoch save_strategy
resume_from_checkpoint auto_resume_from_checkpoints hub_model_id hub_strategy adapter peft sample_packing
pad_to_sequence_len group_by_length eval_sample_packing tokenizer_type trust_remote_code dataloader_num_workers
dataset_num_proc dataset_processes dataloader_pin_memory
""".split()  # noqa: SIM905
"""Fields of the classes in its src/axolotl/utils/schemas at 067b021c8, of July 2026."""


def setting(name: str) -> str:
    """What a key is here."""
    for ours, names in SETTINGS.items():
        if name in names:
            return ours
    return translation(name) or ""


def table(names: Sequence[str]) -> str:
    """As Markdown, a row for each setting here, in the order of their table."""
    keys: dict[str, list[str]] = {}
    for name in names:
        keys.setdefault(setting(name), []).append(name)
    rows = ["| there | here |", "|---|---|"]
    for ours, theirs in keys.items():
        words = ", ".join(f"`{name}`" for name in theirs)
        rows.append(f"| {words} | {_quoted(ours)} |")
    return "\n".join(rows)


def _quoted(ours: str) -> str:
    return f"`{ours}`" if " " not in ours else ours


def llama_factory() -> str:
    """Its table."""
    return table(LLAMA_FACTORY)


def axolotl() -> str:
    """Its table."""
    return table(AXOLOTL)
