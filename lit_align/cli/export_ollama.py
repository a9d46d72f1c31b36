"""``lit-align export --ollama``: a Modelfile beside the merged weights, and these as GGUF where that can be written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lit_align.models.gguf_file import gguf_obstacle, write_gguf
from lit_align.models.modelfile import modelfile
from lit_align.models.stop_ids import stop_ids

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

GGUF_FILE = "model.gguf"


def write_for_ollama(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    target: Path,
) -> list[str]:
    """Write the Modelfile, and the GGUF file if it can be written; returns what to do next, in sentences.

    Args:
        model: merged.
        tokenizer: with the chat template.
        folder: where to.
        target: what the folder will be called, for the commands.
    """
    stops = tokenizer.convert_ids_to_tokens(stop_ids(model, tokenizer))
    text, no_template = modelfile(GGUF_FILE, tokenizer, stops)
    (folder / "Modelfile").write_text(text, "utf-8")
    sentences = []
    obstacle = gguf_obstacle(model, tokenizer)
    if obstacle is None:
        write_gguf(model, tokenizer, folder / GGUF_FILE)
        sentences.append(f"{target / GGUF_FILE} holds the weights for llama.cpp and Ollama.")
    else:
        outtype = "f32" if str(model.dtype) == "torch.float32" else "bf16"
        sentences.append(
            f"No GGUF file is written, because {obstacle}; llama.cpp converts the folder: "
            f"python convert_hf_to_gguf.py {target} --outfile {target / GGUF_FILE} --outtype {outtype}"
        )
    if no_template is not None:
        sentences.append(
            f"The Modelfile has no TEMPLATE: {no_template}. Write one by hand, or train with chat_template: chatml."
        )
    sentences.append(
        f"Then: ollama create NAME -f {target / 'Modelfile'} (with --quantize q4_K_M for 4 bits), and ollama run NAME. "
        "Ollama itself has not been run on these files."
    )
    return sentences
