# The frozen patch encoder of the toy slides: 64 numbers for one 64 × 64 RGB tile. It stands where a hospital runs a pathology foundation model. Never trained.
# encode(tiles uint8 (n, 64, 64, 3)) → float32 (n, 64), each about zero mean and unit variance over the phantoms' tiles.
# Statistics (colour, contrast, gradient, Laplacian of Gaussian at two scales; 12 random 5 × 5 filters with ReLU, mean and standard deviation), standardised by the constants
# below, then a fixed random rotation to 64. All random weights come from SEED. `python encoder.py` prints the constants anew; new constants need a newly trained model.
import numpy as np

from encoder_constants import CENTRE, SPREAD

SEED = 20260604
WIDTH, FILTERS = 64, 12
_rng = np.random.Generator(np.random.PCG64(SEED))
_filters = _rng.standard_normal((FILTERS, 75)).astype(np.float32)
_filters -= _filters.mean(1, keepdims=True)
_filters /= np.sqrt((_filters**2).sum(1, keepdims=True))


def _half(x):
    """(n, h, w, …) → means of 2 × 2."""
    return 0.25 * (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2])


def _scale_statistics(rgb):
    out = [rgb.mean((1, 2)), rgb.std((1, 2))]
    grey = rgb.mean(3)
    gx, gy = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    out += [np.stack([gx.mean((1, 2)), gy.mean((1, 2)), gx.std((1, 2)), gy.std((1, 2))], 1)]
    for a in (rgb[..., 0], rgb[..., 2]):
        inner = a[:, 1:-1, 1:-1]
        log = a[:, :-2, 1:-1] + a[:, 2:, 1:-1] + a[:, 1:-1, :-2] + a[:, 1:-1, 2:] - 4 * inner
        out += [np.stack([np.maximum(log, 0).mean((1, 2)), np.maximum(-log, 0).mean((1, 2)), log.std((1, 2))], 1)]
    out += [np.stack([(grey < t).mean((1, 2)) for t in (0.25, 0.4, 0.55, 0.7, 0.85)], 1)]
    return out


def statistics(tiles):
    """uint8 (n, 64, 64, 3) → float32 (n, 87)."""
    rgb = tiles.astype(np.float32) / 255
    half = _half(rgb)
    quarter = _half(half)
    out = [s for scale in (rgb, half, quarter) for s in _scale_statistics(scale)]
    windows = np.lib.stride_tricks.sliding_window_view(half, (5, 5), axis=(1, 2))[:, ::2, ::2]  # (n, 14, 14, 3, 5, 5)
    n = len(tiles)
    conv = np.maximum(windows.reshape(n, -1, 75) @ _filters.T, 0)
    out += [conv.mean(1), conv.std(1)]
    return np.concatenate(out, 1)


COUNT = 3 * (3 + 3 + 4 + 6 + 5) + 2 * FILTERS  # 87
_rotation = np.linalg.qr(_rng.standard_normal((COUNT, COUNT)))[0][:, :WIDTH].astype(np.float32) * np.float32(np.sqrt(COUNT / WIDTH))


def encode(tiles):
    z = (statistics(tiles) - np.float32(CENTRE)) / np.float32(SPREAD)
    return np.clip(z, -6, 6) @ _rotation


def _calibrate():
    from pathology import Bank
    tiles = np.concatenate([Bank(seed, 4).all_tiles() for seed in range(3)])
    s = statistics(tiles)
    for name, v in (("CENTRE", s.mean(0)), ("SPREAD", s.std(0) + 1e-4)):
        words = [f"{x:.4g}" for x in v]
        lines = ["    " + ", ".join(words[i:i + 12]) + "," for i in range(0, len(words), 12)]
        print(f"{name} = [\n" + "\n".join(lines) + "\n]")


if __name__ == "__main__":
    _calibrate()
