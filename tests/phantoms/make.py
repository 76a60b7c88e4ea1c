# Phantoms of five modalities with their truth: python tests/phantoms/make.py OUT --seed S [--ultrasound N] [--mammography N] [--ct N] [--mri N] [--pathology N] [--jobs J]
# → OUT/{ultrasound,mammography,ct,mri,pathology}/* and OUT/findings.csv (one row = one case). A case depends on (seed, modality, index) alone, not on how many are made or by how
# many processes. Same bytes on the same machine with the same numpy and zlib; elsewhere a grey value may differ by one (exp, sin, matrix products), findings do not.
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one core per process

import argparse
import csv
import multiprocessing
import sys

import mammography
import pathology
import ultrasound
import volumes
from common import MODALITIES, VENDORS, pick, stream, write_nifti, write_png, write_safetensors

PREFIX = {"ultrasound": "us", "mammography": "mg", "ct": "ct", "mri": "mr", "pathology": "pa"}
COLUMNS = ("case modality image volume slide thumbnail vendor laterality density mass shape margin echo posterior orientation quadrant side size_mm mass_box enhancement background "
           "focality calcifications calc_box node tumour tumour_percent grade subtype til necrosis birads assessment surgery therapy").split()


def make_case(out, seed, modality, index, bank):
    """Writes the media; → the row of findings."""
    rng = stream(seed, MODALITIES.index(modality), index)
    vendor = pick(rng, *VENDORS)
    name = f"{PREFIX[modality]}-{index:05d}"
    path = f"{modality}/{name}"
    row = {"case": name, "modality": modality, "vendor": vendor}
    if modality in ("ultrasound", "mammography"):
        findings, picture = (ultrasound if modality == "ultrasound" else mammography).make(rng, vendor)
        row["image"] = path + ".png"
        write_png(f"{out}/{row['image']}", picture)
    elif modality in ("ct", "mri"):
        findings, volume = (volumes.make_ct if modality == "ct" else volumes.make_mri)(rng, vendor)
        row["volume"] = path + ".nii.gz"
        write_nifti(f"{out}/{row['volume']}", volume, volumes.SPACING, volumes.CT_DIRECTION if modality == "ct" else volumes.MRI_DIRECTION)
    else:
        findings, features, coords, thumbnail = pathology.make(rng, vendor, bank)
        row["slide"], row["thumbnail"] = path + ".safetensors", path + ".png"
        write_safetensors(f"{out}/{row['slide']}", features, coords, {"patch_size_level0": str(pathology.TILE0), "patch_size": str(pathology.SIDE), "target_magnification": "5"})
        write_png(f"{out}/{row['thumbnail']}", thumbnail)
    return row | findings


def make_share(work):
    out, seed, cases = work
    bank = pathology.Bank(seed) if any(m == "pathology" for m, _ in cases) else None
    return [make_case(out, seed, m, i, bank) for m, i in cases]


def main():
    parser = argparse.ArgumentParser(description="Breast phantoms with structured findings.")
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    for m in MODALITIES:
        parser.add_argument("--" + m, type=int, default=0, metavar="N")
    args = parser.parse_args()
    if args.seed < 0 or args.jobs < 1 or any(not 0 <= getattr(args, m) <= 99999 for m in MODALITIES):
        parser.error("seed ≥ 0, jobs ≥ 1 and 0 … 99999 cases of a modality, please")
    cases = [(m, i) for m in MODALITIES for i in range(1, getattr(args, m) + 1)]
    for m in MODALITIES:
        if getattr(args, m):
            os.makedirs(f"{args.out}/{m}", exist_ok=True)
    os.makedirs(args.out, exist_ok=True)
    shares = [(args.out, args.seed, cases[k::args.jobs]) for k in range(args.jobs)]
    if args.jobs == 1:
        done = [make_share(shares[0])]
    else:
        with multiprocessing.Pool(args.jobs) as pool:
            done = pool.map(make_share, shares)
    rows = [None] * len(cases)
    for k, share in enumerate(done):
        rows[k::args.jobs] = share
    with open(f"{args.out}/findings.csv", "w", newline="", encoding="utf-8") as f:
        table = csv.DictWriter(f, COLUMNS, restval="", lineterminator="\r\n")
        table.writeheader()
        table.writerows(rows)
    print(f"{len(rows)} cases in {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
