"""`python -m handclip_lib.training FOLDER`, on each of several processes: one fine-tune.

FOLDER holds `training.yml`: the notebook's name as `notebook`, its parameters, and as `texts` the folder of a prompt
run, where one is wanted. The training goes on from the checkpoint in FOLDER, where there is one, and leaves
`best.safetensors` and `final.safetensors` there. Notebooks 03 and 04 do this by themselves with `processes` above 1,
and open no port that another machine reaches. On several machines start it on each with `torchrun` or `accelerate
launch`, and FOLDER on a shared disk. **Those open ports on every interface, and whoever reaches one can run programs as
you: only in a network whose machines you trust** (docs/cluster.md says how to name addresses).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from handclip_lib.backbone.load import configured_backbone
from handclip_lib.data.folds import choose_folds
from handclip_lib.data.open import open_images
from handclip_lib.errors import ConfigError, HandClipError
from handclip_lib.models.trained import image_encoder, prompt_texts, save_trained
from handclip_lib.parameters.files import read_mapping
from handclip_lib.parameters.guard import resolve
from handclip_lib.parameters.notebooks import NOTEBOOKS, ImageFinetune
from handclip_lib.training.folds import fit_folds
from handclip_lib.training.image import fit_image
from handclip_lib.training.launch import PARAMETERS, Processes, this_device
from handclip_lib.training.sets import open_sets
from handclip_lib.training.validation import training_images


def main(arguments: Sequence[str]) -> int:
    """Train; return the exit code: 0, or 2 for what cannot be trained."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        train(Path(arguments[0]))
    except HandClipError as error:
        print(f"handclip: {error}", file=sys.stderr)
        return 2
    return 0


def train(folder: Path) -> None:
    """Train as `training.yml` in a folder says.

    Raises:
        HandClipError: The file is absent or wrong, or the training cannot be done.
    """
    config, texts = _read(folder / PARAMETERS)
    device, processes = this_device(config.device)
    print(processes)
    model = configured_backbone(config, device, progress=False)
    table, images, split = open_images(config, model.resolution, model.properties.interpolation, progress=False)
    sets = open_sets(config, table, split, model, progress=False)
    folds = choose_folds(split, config.validation, config.folds, sets.known)
    people = training_images(images, split, folds, sets.extra)
    text = prompt_texts(model, texts, people.identities, split)
    measured = fit_folds(model, images, split, folds, config, texts=text, folder=folder, extra=sets.extra)
    encoder = image_encoder(model, len(people.identities), config)
    fit_image(
        encoder, people.pixels, people.labels, config, text=text, validate=people.validate, folder=folder,
        keep_epoch=measured.best_epoch,
    )  # fmt: skip
    if Processes(encoder.classifier.device).is_main:
        save_trained(encoder, model, folder)


def _read(file: Path) -> tuple[ImageFinetune, Path | None]:
    try:
        given = read_mapping(file)
        notebook, texts = given.pop("notebook"), given.pop("texts", None)
    except (ConfigError, KeyError) as error:
        raise ConfigError(f"{file} gives no notebook and parameters ({error})") from error
    model = NOTEBOOKS.get(notebook) if isinstance(notebook, str) else None
    if model is None or not issubclass(model, ImageFinetune):
        raise ConfigError(f"{file}: notebook={notebook!r} trains no image tower; 03_image_finetune does")
    return resolve(model, given), Path(str(texts)) if texts else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
