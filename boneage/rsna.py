"Names of earlier versions; where they stand now: `boneage.moved`."
from boneage.moved import forward

__getattr__ = forward(__name__)
