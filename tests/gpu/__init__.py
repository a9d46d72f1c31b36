"""The GPU kit: whether lit_align computes right, fits and pays on a GPU, in two calls of four minutes."""
