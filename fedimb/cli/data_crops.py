"""``fedimb data crops``: cut annotated boxes out of pictures, for classification."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.parts import CropsWritten
    from fedimb.cli.verbs import Verbs

_CROPS = """\
Cut every annotated box out of its picture: a detection data set becomes pictures of objects, with a list that
data=image_csv reads. Annotations are COCO's JSON, or VOC's XML files in a folder.

  fedimb data crops instances.json --images pictures --to crops
  fedimb data crops VOC2012/Annotations --images VOC2012/JPEGImages --to crops --context 0.1
  fedimb data crops camera_traps.json --images pictures --to crops --site location --patient seq_id
  fedimb run data=image_csv data.source.path=crops/crops.csv

Crops of one picture stay on one side of every split (the column patient). Boxes outside their picture, annotations of
another size, and two classes for one box are refused with their places; --on-bad skip leaves them out."""


def register_crops(actions: "Verbs") -> None:
    """Add ``crops`` to the actions of ``fedimb data``."""
    parser = actions.add_parser(
        "crops",
        help="cut annotated boxes out of pictures (VOC, COCO)",
        description=_CROPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("annotations", metavar="PATH", help="COCO's .json, or a folder of VOC's .xml files")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder or .zip of the pictures")
    parser.add_argument("--to", required=True, metavar="DIR", help="the new folder")
    parser.add_argument("--classes", metavar="A,B", help="only these classes, in this order")
    parser.add_argument(
        "--context", type=float, default=0.0, metavar="S", help="share of a box's sides to add on each side (default 0)"
    )
    parser.add_argument(
        "--min-side", type=int, default=1, metavar="N", help="leave out boxes with a side below N pixels (default 1)"
    )
    parser.add_argument("--difficult", action="store_true", help="keep boxes that VOC marks as difficult")
    parser.add_argument("--mode", default="RGB", metavar="M", help="RGB or L (grey)")
    parser.add_argument("--site", metavar="KEY", help="key of COCO's images that names the site")
    parser.add_argument("--patient", metavar="KEY", help="key of COCO's images that says which belong together")
    parser.add_argument("--origin", type=int, default=1, metavar="N", help="number of VOC's first pixel: 1, or 0")
    parser.add_argument("--on-bad", default="refuse", metavar="X", help="refuse, or skip: boxes that cannot be used")
    parser.set_defaults(handler=crops_command)


def crops_command(args: argparse.Namespace) -> "CropsWritten":
    """``fedimb data crops``.

    Raises:
        ConfigError: an option out of range, or the folder is there already.
        DataError: annotations or pictures that cannot be read, or boxes that cannot be used.
    """
    from fedimb.cli.output.parts import CropsWritten
    from fedimb.data.importing.boxes import read_boxes
    from fedimb.data.importing.crops import CropSettings, write_crops
    from fedimb.data.paths import find_data
    from fedimb.data.problems import Problems
    from fedimb.data.sources.image_files import open_files
    from fedimb.text import plain

    classes = tuple(args.classes.split(",")) if args.classes else None
    settings = CropSettings(args.context, args.min_side, args.difficult, args.mode, classes)
    problems, to = Problems(args.on_bad, "--on-bad skip"), Path(args.to)
    found = read_boxes(find_data(args.annotations), problems, origin=args.origin, site=args.site, patient=args.patient)
    done = write_crops(found, open_files(find_data(args.images)), to, settings, problems)
    left_out = [f"{count} boxes {why}" for why, count in done.left_out.items() if count]
    if done.trimmed:
        left_out.append(f"{done.trimmed} boxes cut at the picture's edge, which they crossed by at most a pixel")
    if done.small:
        left_out.append(f"{done.small} crops have a side below 8 pixels (--min-side 8 leaves them out)")
    if done.without:
        left_out.append(f"{done.without} pictures without a box")
    run = f"fedimb run data=image_csv data.source.path={to / 'crops.csv'}"
    if not args.json:
        wide = max(map(len, done.counts))
        for name, count in done.counts.items():
            print(f"{plain(name, sys.stdout):{wide}}  {count:>7,}" + ("" if count else "   no crop"))
        print(f"\n{sum(done.counts.values()):,} crops of {done.pictures:,} pictures")
        print("".join(f"{plain(line, sys.stdout)}\n" for line in (*left_out, *done.skipped)), end="")
        print(f"written: {to / 'crops.csv'}\nrun it:  {run}")
    return CropsWritten(
        file=str(to / "crops.csv"),
        class_names=list(done.counts),
        counts=list(done.counts.values()),
        pictures=done.pictures,
        left_out=left_out,
        skipped=list(done.skipped),
        run=run,
    )
