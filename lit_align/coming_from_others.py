"""The setting here for names that LLaMA-Factory, Axolotl and others use."""

from __future__ import annotations

from lit_align.coming_from_trl import translation

SETTINGS: dict[str, tuple[str, ...]] = {
    "model.base.path": (
        *("base_model", "base_model_name_or_path", "pretrained_model_name_or_path", "model_name"),
        *("model_path", "model_id", "pretrain", "sft_model_path"),
    ),
    "model.base.quantization": (
        *("quantization_bit", "quantization_method", "quant_method", "use_4bit"),
        *("bnb_4bit_quant_type", "bnb_4bit_compute_dtype"),
    ),
    "model.base.dtype": (
        *("bf16", "fp16", "tf32", "torch_dtype", "bfloat16", "float16", "pure_bf16", "precision"),
        *("mixed_precision", "infer_dtype"),
    ),
    "model.base.attention": (
        "attn_implementation",
        "flash_attn",
        "flash_attention",
        "use_flash_attn",
    ),
    "model.base.revision": ("model_revision",),
    "model.lora.r": ("lora_rank", "rank"),
    "model.lora.targets": (
        *("lora_target", "lora_target_modules", "lora_target_linear", "target_modules"),
    ),
    "model.init_adapter": (
        *("adapter_name_or_path", "lora_model_dir", "peft_model_id", "adapter_path"),
        *("lora_weights", "sft_adapter"),
    ),
    "the stage as model.class_path (SFT, Preference, RewardModel or RL)": (
        *("stage", "rl", "task_type", "trainer_type", "training_type", "do_train"),
    ),
    "model.objective": (
        "pref_loss",
        "loss",
        "loss_fn",
        "criterion",
        "dpo_loss_type",
        "kto_loss_type",
    ),
    "model.objective.beta": (
        "pref_beta",
        "dpo_beta",
        "rl_beta",
        "kto_beta",
        "orpo_beta",
        "cpo_beta",
    ),
    "the objective Mix with CrossEntropy": ("pref_ftx", "rpo_alpha", "sft_weight", "nll_coef"),
    "model.objective.gamma of SimPO": ("simpo_gamma",),
    "model.chat_template": (
        "template",
        "prompt_template",
        "custom_chat_template",
        "chat_template_path",
    ),
    "model.optimizer": ("optim", "optimizer_type", "optimiser"),
    "model.optimizer.lr": ("lr", "base_lr", "max_lr", "actor_learning_rate"),
    "model.optimizer.weight_decay": ("wd",),
    "model.optimizer.betas with both numbers": ("adam_beta1", "adam_beta2", "adam_betas"),
    "model.optimizer.eps": ("adam_epsilon",),
    "model.schedule": (
        *("scheduler", "lr_schedule", "lr_scheduler", "lr_scheduler_kwargs", "scheduler_type"),
    ),
    "model.schedule.warmup": ("warmup_ratio", "num_warmup_steps", "warmup_epochs"),
    "model.schedule.floor": ("cosine_min_lr_ratio", "min_lr", "min_lr_ratio", "lr_min"),
    "model.max_grad_norm": ("gradient_clipping", "clip_grad", "grad_clip", "max_norm"),
    "model.gradient_checkpointing": ("use_gradient_checkpointing", "activation_checkpointing"),
    "model.max_new_tokens": (
        *("max_completion_length", "response_length", "generate_max_len", "max_tokens"),
    ),
    "model.reward": ("reward_model", "reward_funcs", "reward_model_path", "reward_fn"),
    "model.kl": ("kl_coef", "init_kl_coef", "kl_penalty"),
    "model.critic.vf_coef": ("vf_coef", "value_loss_coef"),
    "model.objective.clip": ("cliprange", "epsilon", "eps_clip"),
    "model.num_iterations": ("num_ppo_epochs", "ppo_epochs"),
    "model.num_minibatches": ("num_mini_batches",),
    "model.missing_eos_reward": ("missing_eos_penalty",),
    "data.train": (
        *("dataset", "datasets", "dataset_path", "dataset_dir", "data_path", "train_file"),
        *("train_dataset", "data_files", "train_files", "train_data", "prompt_data"),
    ),
    "data.validation with files of their own": (
        *(
            "val_size",
            "val_set_size",
            "eval_dataset",
            "validation_file",
            "test_datasets",
            "eval_file",
        ),
        *("val_dataset", "test_size", "dataset_test_split", "eval_ratio", "validation_split"),
    ),
    "data.max_length": (
        *("cutoff_len", "sequence_len", "max_seq_length", "max_seq_len", "model_max_length"),
        *("max_prompt_length", "block_size", "max_len", "context_length", "max_sequence_length"),
    ),
    "data.overlong": ("truncation_mode", "excess_length_strategy", "truncation"),
    "data.batch_size": (
        *("train_batch_size", "global_batch_size", "batch", "effective_batch_size"),
    ),
    "data.batch_size (of all GPUs together) and data.token_budget (tokens in memory at once)": (
        *("micro_batch_size", "micro_train_batch_size", "per_device_eval_batch_size"),
        *("eval_batch_size", "per_gpu_train_batch_size"),
    ),
    "data.columns": (
        *("dataset_text_field", "field_messages", "field_instruction", "prompt_key", "input_key"),
        *("chosen_key", "rejected_key", "messages_key", "column_mapping"),
    ),
    "data.learned_turns": (
        *("train_on_inputs", "completion_only_loss", "assistant_only_loss", "train_on_prompt"),
        *("mask_history", "roles_to_train"),
    ),
    "data.seed": ("data_shuffle_seed", "shuffle_seed"),
    "data.prepared_cache": ("dataset_prepared_path", "overwrite_cache", "tokenized_path"),
    "trainer.max_epochs": ("num_epochs", "epochs", "n_epochs", "num_train_epoch", "epoch"),
    "trainer.max_steps": ("max_train_steps", "num_steps", "total_steps", "max_iters", "steps"),
    "trainer.devices": ("num_gpus", "n_gpu", "gpus", "num_processes", "nproc_per_node", "ngpus"),
    "trainer.accelerator": ("device", "no_cuda", "use_cpu", "device_map", "use_mps_device"),
    "trainer.logger": (
        *("logger", "log_with", "wandb", "use_wandb", "tensorboard", "logging_dir", "tracker"),
        "use_mlflow",
    ),
    "trainer.logger: wandb, and the service's own variables such as WANDB_PROJECT,": (
        *("wandb_project", "wandb_name", "wandb_entity", "wandb_run_id", "wandb_watch"),
        *("wandb_log_model", "mlflow_experiment_name", "run_name", "project", "experiment_name"),
    ),
    "trainer.callbacks with EarlyStopping": (
        *("early_stopping_patience", "early_stopping", "patience", "early_stopping_threshold"),
    ),
    "trainer.callbacks with ModelCheckpoint": (
        *("save_total_limit", "load_best_model_at_end", "metric_for_best_model", "save_top_k"),
        *("greater_is_better", "save_best", "saves_per_epoch"),
    ),
    "trainer.val_check_interval": (
        *("eval_strategy", "evaluation_strategy", "evals_per_epoch", "eval_every", "do_eval"),
        *("eval_interval", "val_every"),
    ),
    "trainer.limit_train_batches": ("max_samples", "max_train_samples"),
    "trainer.profiler": ("profile",),
    "save_every": ("save_strategy", "save_interval", "checkpoint_every", "save_freq"),
    "-c FILE": ("cfg", "config_file", "conf", "yaml", "config_path", "recipe"),
    "run": ("output", "save_path", "checkpoint_dir", "run_dir", "out_dir", "save_dir"),
    "--ckpt_path, after fit": ("resume_from_checkpoint", "resume", "auto_resume_from_checkpoints"),
    "lit-align export --push, after training": (
        *("push_to_hub", "hub_model_id", "hub_token", "hub_strategy", "hub_private_repo"),
    ),
    "nothing: a run always trains a LoRA adapter": (
        *(
            "finetuning_type",
            "adapter",
            "use_peft",
            "use_lora",
            "peft",
            "lora_task_type",
            "peft_config",
        ),
        "peft_type",
    ),
    "nothing: rows are always packed without crossing": (
        *("packing", "sample_packing", "pad_to_sequence_len", "group_by_length", "neat_packing"),
        "eval_sample_packing",
    ),
    "nothing: each run gets a folder of its own": ("overwrite_output_dir", "overwrite"),
    "nothing: the tokenizer is that of model.base.path": (
        *("tokenizer", "tokenizer_name", "tokenizer_type", "tokenizer_name_or_path", "model_type"),
    ),
    "nothing: the reference is the base, or model.init_adapter": (
        *("ref_model", "reference_model", "ref_model_name_or_path", "reference_free"),
    ),
    "nothing in 8 bits: model.base.quantization is nf4 or none": ("load_in_8bit",),
    "nothing: code of a model's repository is never run": ("trust_remote_code",),
    "nothing: files of 4 MiB and more are tokenised by all cores": (
        *("dataloader_num_workers", "num_workers", "preprocessing_num_workers"),
        *("dataset_num_proc", "dataset_processes", "num_proc", "dataloader_pin_memory"),
    ),
}
"""What a setting is here, and its names elsewhere. No feature of the others that lacks an equivalent is listed."""

_BY_NAME = {name: setting for setting, names in SETTINGS.items() for name in names}


def setting_elsewhere(name: str) -> str | None:
    """What a setting of another library is here; None if it is not known.

    Example:
        >>> setting_elsewhere("lora_alpha"), setting_elsewhere("cutoff_len")
        ("TRL's lora_alpha is model.lora.alpha here", 'write data.max_length instead')
        >>> setting_elsewhere("sample_packing"), setting_elsewhere("betta")
        ('leave it out: rows are always packed without crossing', None)
    """
    setting = translation(name)
    if setting:
        return f"TRL's {name} is {setting} here"
    setting = _BY_NAME.get(name)
    if setting is None:
        return None
    kind, _, reason = setting.partition(": ")
    return f"leave it out: {reason}" if kind == "nothing" else f"write {setting} instead"
