"""What varies in a rendered face: names, ranges, how factors are drawn, how they mirror.

Every number is a hash of (stream, number, column name): an identity's looks depend on its number alone, an image's
on (seed, row) alone, so a longer table starts with the rows of a shorter one.
"""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from pcl_lib.utils import BadInput

Floats = NDArray[np.float64]
EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
AUS = ("au01", "au02", "au04", "au06", "au09", "au12", "au15", "au20", "au25", "au26")
# EMFACS combinations, restricted to the AUs the head has: typical intensity of each AU in a full expression.
# Published prototypes: happy 6+12, sad 1+4+15, surprise 1+2+26, fear 1+2+4+20+25/26, disgust 9+15, anger 4 (+ open
# mouth); AU5, 7 and 23 are not in the list of ten, so brow raising also lifts the lids and AU4 also narrows them.
PROTOTYPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"au06": 3.5, "au12": 4.3, "au25": 3.0},
    "sad": {"au01": 4.2, "au04": 2.2, "au15": 4.3},
    "surprise": {"au01": 4.0, "au02": 4.3, "au25": 3.5, "au26": 4.2},
    "fear": {"au01": 4.4, "au02": 2.4, "au04": 2.8, "au20": 4.2, "au25": 3.5, "au26": 1.2},
    "disgust": {"au09": 4.5, "au04": 1.5, "au15": 2.0, "au25": 1.5},
    "anger": {"au04": 4.8, "au06": 0.8, "au09": 1.0, "au20": 0.8, "au25": 1.2},
}
# Shape of the head, in standard deviations (clipped to +-2.5); geometry.py says what each one moves.
SHAPE = (
    "face_width", "face_length", "head_depth", "forehead_height", "jaw_width", "chin_length", "chin_forward",
    "cheekbones", "cheek_fullness", "brow_ridge", "brow_height", "brow_arch", "eye_spacing", "eye_size",
    "eye_tilt", "eye_depth", "nose_length", "nose_width", "nose_bridge", "nose_tip", "nose_size", "mouth_width",
    "mouth_height", "lip_fullness", "ear_size", "ear_flare", "neck_width",
)  # fmt: skip
HAIR_STYLES = ("bald", "buzz", "short", "quiff", "bob", "long", "tied", "curly")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
LOOKS = (
    "skin_tone", "skin_warmth", "freckles", "age", "lip_redness", "eye_colour", "brow_thickness", "hair_style",
    "hair_tone", "hair_grey", "hair_volume", "hairline", "hair_part", "fringe", "beard", "beard_density",
    "glasses", "glasses_tone",
)  # fmt: skip
POSE = ("yaw", "pitch", "roll")
POSE_SPREAD = {"yaw": (30.0, 75.0), "pitch": (11.0, 30.0), "roll": (8.0, 20.0)}  # standard deviation, bound
SCENE = (
    "gaze_x", "gaze_y", "shift_x", "shift_y", "zoom", "light_azimuth", "light_elevation", "light_warmth",
    "light_strength", "ambient", "background_r", "background_g", "background_b", "background_gradient",
    "background_contrast", "background_detail", "background_seed", "occluder", "occluder_x", "occluder_y",
    "occluder_size", "occluder_angle", "occluder_tone", "noise", "noise_seed", "blur", "mirrored",
)  # fmt: skip
NUMERIC = (*SHAPE, *LOOKS, *AUS, *POSE, *SCENE)  # all that the renderer reads
MIRRORED_SIGN = (
    "yaw",
    "roll",
    "gaze_x",
    "shift_x",
    "light_azimuth",
    "hair_part",
    "occluder_x",
    "occluder_angle",
)


def _uniform(stream: int, number: NDArray[np.int64], name: str) -> Floats:
    """Uniform numbers in (0, 1), one for each entry of `number` (SplitMix64 finaliser)."""
    with np.errstate(over="ignore"):
        h = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        h += np.uint64(stream & 0xFFFFFFFFFFFFFFFF) * np.uint64(0xD1B54A32D192ED03)
        h ^= np.uint64(zlib.crc32(name.encode())) << np.uint64(17)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 0x9E3779B97F4A7C15)):
            h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
        h ^= h >> np.uint64(32)
    return ((h >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


class _Draw:
    """Named draws for a column of identity or row numbers."""

    def __init__(self, stream: int, number: NDArray[np.int64]) -> None:
        self.stream, self.number = stream, number

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Floats:
        return low + (high - low) * _uniform(self.stream, self.number, name)

    def normal(self, name: str, sd: float = 1.0, bound: float = 2.5) -> Floats:
        """Truncated at +-bound, by the inverse of its distribution function."""
        edge = float(ndtr(-bound / sd))
        return sd * ndtri(edge + (1 - 2 * edge) * self.uniform(name))

    def choice(self, name: str, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index by weights: [k] for all, or [n, k] by row."""
        edges = np.cumsum(np.atleast_2d(weights), axis=1)
        return (self.uniform(name)[:, None] * edges[:, -1:] > edges).sum(axis=1)


def _identity_columns(identity: NDArray[np.int64]) -> dict[str, NDArray]:
    draw = _Draw(0x1D, identity)
    build = draw.uniform("build")  # a hidden latent: jaw, brows, beard and hair length go together
    out: dict[str, NDArray] = {name: draw.normal(name) for name in SHAPE}
    lean = 2.0 * build - 1.0
    pulls = (("jaw_width", 0.7), ("brow_ridge", 0.8), ("chin_length", 0.4), ("nose_size", 0.4),
             ("neck_width", 0.8), ("lip_fullness", -0.5), ("eye_size", -0.4), ("brow_height", -0.4))  # fmt: skip
    for name, pull in pulls:
        out[name] = np.clip(0.85 * out[name] + pull * lean, -2.5, 2.5)
    tone, age = draw.uniform("skin_tone"), draw.uniform("age") ** 1.3
    dark = np.clip((tone - 0.35) / 0.3, 0, 1)  # 1 where fair hair and light eyes are not drawn
    out.update(skin_tone=tone, age=age, skin_warmth=draw.normal("skin_warmth"))
    out["freckles"] = np.clip(draw.uniform("freckles") * 2 - 1, 0, 1) * (1 - dark)
    out["lip_redness"] = draw.uniform("lip_redness") * (1 - 0.5 * build)
    out["eye_colour"] = draw.uniform("eye_colour") * (1 - 0.9 * dark)
    out["brow_thickness"] = np.clip(draw.normal("brow_thickness", 0.8) + 0.8 * lean, -2.5, 2.5)
    masc = np.array([1.6, 2.2, 5.0, 3.6, 0.2, 0.3, 0.2, 0.9])
    fem = np.array([0.1, 0.2, 1.0, 0.5, 3.0, 4.0, 2.4, 1.3])
    out["hair_style"] = draw.choice("hair_style", np.where(build[:, None] > 0.5, masc, fem))
    out["hair_tone"] = draw.uniform("hair_tone") * (1 - 0.85 * dark)
    out["hair_grey"] = np.clip((age - 0.55) / 0.4, 0, 1) * draw.uniform("hair_grey")
    out["hair_volume"] = draw.uniform("hair_volume", 0.6, 1.4)
    out["hairline"] = np.clip(draw.normal("hairline", 0.8) + 0.8 * age * build, -2.5, 2.5)
    out["hair_part"] = draw.uniform("hair_part", -1.0, 1.0)
    out["fringe"] = (draw.uniform("fringe") < 0.35) * draw.uniform("fringe_length", 0.5, 1.0)
    beard = np.where(build[:, None] > 0.55, np.array([3.0, 2.0, 0.6, 1.0, 1.6]), np.array([1.0, 0, 0, 0, 0]))
    out["beard"] = draw.choice("beard", beard)
    out["beard_density"] = draw.uniform("beard_density", 0.5, 1.0)
    out["glasses"] = (draw.uniform("glasses") < 0.16).astype(np.int64)
    out["glasses_tone"] = draw.uniform("glasses_tone")
    return out


def _expression_columns(draw: _Draw) -> dict[str, NDArray]:
    chosen = draw.choice("expression", np.ones(len(EXPRESSIONS)))
    strength = draw.uniform("strength", 0.65, 1.1)
    table = np.array([[PROTOTYPES[e].get(au, 0.0) for au in AUS] for e in EXPRESSIONS])[chosen]
    out: dict[str, NDArray] = {"expression": np.array(EXPRESSIONS)[chosen]}
    for k, au in enumerate(AUS):
        varied = table[:, k] * strength * draw.uniform(f"{au}_scale", 0.75, 1.15)
        stray = 0.35 * np.abs(draw.normal(f"{au}_stray")) * (0.3 if au == "au26" else 1.0)
        out[au] = np.clip(varied + stray, 0.0, 5.0)
    # A dropped jaw parts the lips.
    out["au25"] = np.clip(np.maximum(out["au25"], out["au26"] - 0.5), 0.0, 5.0)
    return out


def _scene_columns(draw: _Draw, clutter: float) -> dict[str, NDArray]:
    c = clutter
    out: dict[str, NDArray] = {p: draw.normal(p, *POSE_SPREAD[p]) for p in POSE}
    out["gaze_x"] = draw.normal("gaze_x", 8.0, 20.0)
    out["gaze_y"] = draw.normal("gaze_y", 4.0, 10.0)
    out["shift_x"] = draw.normal("shift_x", 0.015 + 0.03 * c, 0.1)
    out["shift_y"] = draw.normal("shift_y", 0.015 + 0.03 * c, 0.1)
    out["zoom"] = 1.0 + draw.normal("zoom", 0.03 + 0.05 * c, 0.15)
    out["light_azimuth"] = draw.normal("light_azimuth", 32.0 + 15.0 * c, 80.0)
    out["light_elevation"] = 25.0 + draw.normal("light_elevation", 16.0, 35.0)
    out["light_warmth"] = draw.normal("light_warmth", 0.3 + 0.4 * c, 1.0)
    out["light_strength"] = draw.uniform("light_strength", 0.75 - 0.15 * c, 1.1 + 0.2 * c)
    out["ambient"] = draw.uniform("ambient", 0.3 - 0.15 * c, 0.55)
    grey, spread = draw.uniform("background_grey", 0.12, 0.85), 0.06 + 0.2 * c
    for channel in "rgb":
        name = f"background_{channel}"
        out[name] = np.clip(grey + draw.normal(name, spread, 3 * spread), 0.02, 0.98)
    out["background_gradient"] = draw.uniform("background_gradient", 0.0, 0.35)
    out["background_contrast"] = draw.uniform("background_contrast") * (0.05 + 0.5 * c)
    out["background_detail"] = draw.uniform("background_detail") * (0.3 + 0.7 * c)
    out["background_seed"] = np.floor(draw.uniform("background_seed", 0, 2.0**20)).astype(np.int64)
    out["occluder"] = (draw.uniform("occluder") < 0.01 + 0.3 * c).astype(np.int64)
    angle = draw.uniform("occluder_place", -np.pi, np.pi)
    out["occluder_x"], out["occluder_y"] = 0.95 * np.cos(angle), 0.95 * np.sin(angle)
    out["occluder_size"] = draw.uniform("occluder_size", 0.3, 0.6)
    out["occluder_angle"] = draw.uniform("occluder_angle", -90.0, 90.0)
    out["occluder_tone"] = draw.uniform("occluder_tone")
    out["noise"] = draw.uniform("noise") * (0.012 + 0.05 * c)
    out["noise_seed"] = np.floor(draw.uniform("noise_seed", 0, 2.0**20)).astype(np.int64)
    out["blur"] = draw.uniform("blur") * (0.25 + 0.9 * c)
    out["mirrored"] = np.zeros(len(draw.number), np.int64)
    return out


def sample_factors(
    n: int,
    seed: int = 0,
    *,
    identities: int | None = None,
    first_identity: int = 0,
    clutter: float = 0.0,
) -> pd.DataFrame:
    """Draw the true factors of n rendered faces.

    n >= 1 rows; row i shows identity first_identity + i % identities (None: every row its own identity). Who an
    identity is depends on its number alone, everything else on (seed, row). clutter in [0, 1] turns up backgrounds,
    occluders, sunglasses, light changes, noise, blur and framing; 0 is calm.
    Returns a table with `identity`, `expression` (one of EXPRESSIONS), AUS (0 to 5, present from 2 on), POSE in
    degrees (truncated normal, POSE_SPREAD), SHAPE (standard deviations), LOOKS and SCENE (see `describe`d ranges
    in factors.py): all that `render` needs.
    Raises BadInput where an argument is out of range.
    """
    if n < 1 or (identities is not None and identities < 1) or first_identity < 0 or seed < 0:
        raise BadInput(
            f"sample_factors needs n >= 1, identities >= 1 and seed, first_identity >= 0, but got n={n}, "
            f"identities={identities}, seed={seed}, first_identity={first_identity}."
        )
    if not 0.0 <= clutter <= 1.0:
        raise BadInput(f"clutter is a share from 0 (calm) to 1 (busy), but got {clutter}.")
    rows = np.arange(n, dtype=np.int64)
    identity = first_identity + (rows if identities is None else rows % identities)
    draw = _Draw((seed << 8) + 0x5C, rows)
    columns: dict[str, NDArray] = {"identity": identity}
    columns |= _expression_columns(draw) | _scene_columns(draw, clutter) | _identity_columns(identity)
    # The picture is framed like a detector's box: long faces are seen from a little further away.
    excess = 0.43 * columns["face_length"] + 0.42 * columns["chin_length"]  # cm
    columns["zoom"] = columns["zoom"] * 9.9 / (9.9 + 0.5 * excess)
    columns["shift_y"] = columns["shift_y"] - 0.035 * excess
    sunglasses = draw.uniform("sunglasses") < 0.12 * clutter
    columns["glasses"] = np.where(sunglasses, 2, columns["glasses"])
    return pd.DataFrame(columns)


def mirror_factors(f: pd.DataFrame) -> pd.DataFrame:
    """The factors of the horizontally flipped images: render(mirror_factors(f)) is render(f) flipped.

    Heads are left-right symmetric but for hair parting. Yaw, roll, gaze, shift, light azimuth, parting and occluder
    change sign; `mirrored` says that background and camera noise are laid out from the right edge.
    Nothing else distinguishes the two images (rounding aside).
    """
    out = f.copy()
    for name in MIRRORED_SIGN:
        out[name] = -out[name]
    out["mirrored"] = 1 - out["mirrored"]
    return out


def check_factors(f: pd.DataFrame) -> None:
    """Raise BadInput with one sentence where a table cannot be rendered."""
    missing = [c for c in NUMERIC if c not in f.columns]
    if missing:
        raise BadInput(f"The factor table lacks {', '.join(missing[:5])}; draw it with sample_factors.")
    text = [c for c in NUMERIC if not pd.api.types.is_numeric_dtype(f[c])]
    if text:
        raise BadInput(
            f"Factor {text[0]} holds {f[text[0]].dtype}, not numbers; every factor must be a number."
        )
    values = f[list(NUMERIC)].to_numpy(np.float64, na_value=np.nan)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = int(bad[0, 0]), NUMERIC[int(bad[0, 1])]
        raise BadInput(f"Factor {column} in row {row} is not a finite number; every factor must be.")
    limits = {
        "hair_style": len(HAIR_STYLES),
        "beard": len(BEARDS),
        "glasses": 3,
        "occluder": 2,
        "mirrored": 2,
    }
    for name, count in limits.items():
        if not f[name].isin(range(count)).all():
            raise BadInput(f"Factor {name} must be one of 0 to {count - 1}.")
    aus = f[list(AUS)].to_numpy(np.float64)
    if aus.min(initial=0.0) < 0.0 or aus.max(initial=0.0) > 5.0:
        raise BadInput(
            f"Action units are intensities from 0 to 5, but the table holds {aus.min()} to {aus.max()}."
        )
