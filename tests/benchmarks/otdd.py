"""One step of joint OTDD at full size, beside the same maths written down pair by pair.

The literal side makes a covariance of each class, takes POT's distance of normal distributions (by matrix square roots)
for each pair of classes, and solves with POT at the same epsilon and tolerance. It leaves out what ours caches between
steps: the source's own terms. Each side runs in a process of its own, on one thread; seconds are of that thread, and
gradients are compared first.

    python -m tests.benchmarks.otdd
"""

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import torch

PROOF = Path(__file__).parent.parent / "proofs" / "otdd.json"
SOURCE, TARGET, CLASSES, D = 5000, 512, 10, 768


def data():
    """Clouds around class means, of few strong directions and many weak ones, as embeddings are."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, D + 1).float() ** -0.5
    draws = []
    for n, spread in ((SOURCE, 1.0), (TARGET, 1.5)):
        y = torch.arange(n) % CLASSES
        centres = torch.randn(CLASSES, D, generator=generator)
        draws += [(spread * torch.randn(n, D, generator=generator) + centres[y]) * scale, y]
    return draws


def own_side():
    """Seconds of the first step and of later ones (the source is cached by then), gradient, and epsilon."""
    import ot  # noqa: F401 - its import is no part of a step

    from lit_align.orca.distances import OTDD

    x, y, u, v = data()
    u.requires_grad_()
    distance, seconds = OTDD(), []
    for _ in range(3):
        u.grad = None
        start = time.process_time()
        result = distance(x, y, u, v)
        result.value.backward()
        seconds.append(time.process_time() - start)
    return {
        "first": seconds[0],
        "step": min(seconds[1:]),
        "epsilon": float(result.parts["epsilon"]),
        "gradient": u.grad,
    }


def literal_side(epsilon):
    """The same loss less the source's own terms, which have no gradient.

    The graphs of all pairs at once are more than 10 GB, so each pair is differentiated when it has been measured.
    """
    import ot

    x, y, u, v = data()
    u.requires_grad_()

    def labels(a, b, c, k):
        """Squared distance of two classes, and its gradient with respect to ``u``."""
        (m, s), (n, t) = (
            (z.mean(0, keepdim=True), z.T.cov())
            for z in (a[0][a[1] == c].double(), b[0][b[1] == k].double())
        )
        square = ot.gaussian.bures_wasserstein_distance(m[0], n[0], s, t).squeeze() ** 2
        return square.detach(), torch.autograd.grad(square, u)[0]

    def gradient(a, b, same):
        pairs = [
            (c, k) for c in range(CLASSES) for k in range(CLASSES) if not (same and c == k)
        ]  # of itself it is zero
        values, gradients = zip(*(labels(a, b, c, k) for c, k in pairs), strict=True)
        between = torch.zeros(CLASSES, CLASSES, dtype=torch.float64)
        between[tuple(zip(*pairs, strict=True))] = torch.stack(values)
        between = (between + between.T if same else between).requires_grad_()
        cost = ot.dist(a[0].double(), b[0].double()) + between[a[1]][:, b[1]]
        value = ot.solve(
            cost, reg=epsilon, reg_type="KL", grad="envelope", tol=1e-4, max_iter=300
        ).value
        features, mass = torch.autograd.grad(value, (u, between))
        mass = mass + mass.T if same else mass
        return features + sum(
            mass[c, k] * pair_gradient
            for (c, k), pair_gradient in zip(pairs, gradients, strict=True)
        )

    start = time.process_time()
    total = gradient((x, y), (u, v), False) - gradient((u, v), (u, v), True) / 2
    return {"step": time.process_time() - start, "gradient": total.detach()}


def _child(side, arguments, pipe):
    torch.set_num_threads(1)
    result = side(*arguments)
    result["gradient"] = result["gradient"].numpy()
    result["gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    pipe.send(result)


def run_in_process(side, *arguments):
    """The result of ``side`` in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_child, args=(side, arguments, sender))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result | {"gradient": torch.as_tensor(result["gradient"]).double()}


def main():
    ours = run_in_process(own_side)
    print(
        f"ours: {ours['step']:.2f} s, first {ours['first']:.2f} s, {ours['gb']:.2f} GB", flush=True
    )
    literal = run_in_process(literal_side, ours["epsilon"])
    print(f"literal: {literal['step']:.1f} s, {literal['gb']:.2f} GB", flush=True)
    difference = float((ours["gradient"] - literal["gradient"]).norm() / literal["gradient"].norm())
    if difference > 1e-3:
        sys.exit(f"the gradients are {difference:.1e} apart, so the times mean nothing")
    proof = {
        "shape": {"source": SOURCE, "target": TARGET, "classes": CLASSES, "d": D},
        "gradients apart": difference,
        "seconds": {
            "step": ours["step"],
            "first step": ours["first"],
            "literal step": literal["step"],
        },
        "times faster": literal["step"] / ours["step"],
        "peak gb": {"ours": ours["gb"], "literal": literal["gb"]},
    }
    PROOF.write_text(json.dumps(proof, indent=2) + "\n")


if __name__ == "__main__":
    main()
