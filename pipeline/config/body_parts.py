"""The body part that a DICOM header names (BodyPartExamined): one of the terms below, or nothing.

The attribute is technical and says nothing of a patient, but some write other text into it: of that, nothing is kept.

Source: DICOM PS3.16, table L-1 (2018a), whose terms are all here but for vessels; the regions are ours, and joined and
longer spellings are those that scanners write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_LEAST_SHARE = 0.01
# Terms by the regions of the body that they lie in. "WHOLEBODY" lies in all of them, so that it contradicts none.
_REGIONS: dict[str, str] = {
    "head": "MASTOID OPTICCANAL PAROTID SUBMANDIBULAR MOUTH SCALP "
    "HEAD BRAIN SKULL FACE EAR EYE ORBIT SINUS JAW MANDIBLE MAXILLA NOSE ZYGOMA TMJ IAC SELLA TEETH TONGUE "
    "HEADNECK HEADNECKCHEST HEADCHESTABDPELVIS",
    "neck": "SUBMANDIBULAR PAROTID "
    "NECK CSPINE LARYNX PHARYNX THYROID CAROTID TRACHEA HEADNECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV "
    "CERVICALSPINE SPINE CTSPINE HEADNECKCHEST",
    "chest": "SCJOINT THYMUS "
    "CHEST THORAX LUNG HEART MEDIASTINUM BREAST RIB STERNUM TSPINE CORONARYARTERY THORACICAORTA AORTA "
    "CLAVICLE ESOPHAGUS BRONCHUS TRACHEA CHESTABDOMEN CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV SPINE "
    "CTSPINE TLSPINE HEADNECKCHEST HEADCHESTABDPELVIS DIAPHRAGM SCAPULA AXILLA",
    "abdomen": "LARGEINTESTINE UPRURINARYTRACT URETER "
    "ABDOMEN LIVER KIDNEY PANCREAS SPLEEN STOMACH GALLBLADDER ADRENAL COLON DUODENUM JEJUNUM ILEUM BILEDUCT "
    "LSPINE LSSPINE TLSPINE SPINE AORTA ABDOMINALAORTA ABDOMENPELVIS ABDPELVIS CHESTABDOMEN CHESTABDPELVIS "
    "NECKCHESTABDOMEN NECKCHESTABDPELV HEADCHESTABDPELVIS RENALARTERY SMALLINTESTINE DIAPHRAGM ESOPHAGUS",
    "pelvis": "ILIUM URETER URETHRA LARGEINTESTINE "
    "PELVIS HIP BLADDER PROSTATE UTERUS OVARY RECTUM SACRUM SSPINE COCCYX LSSPINE SPINE COLON ABDOMENPELVIS "
    "ABDPELVIS CHESTABDPELVIS NECKCHESTABDPELV HEADCHESTABDPELVIS PELVISLOWEXTREMT SIJOINT CERVIX VAGINA PENIS SCROTUM "
    "TESTIS ANUS",
    "arm": "ACJOINT SCJOINT "
    "ARM UPRARM UPPERARM FOREARM ELBOW WRIST HAND FINGER THUMB SHOULDER HUMERUS RADIUS ULNA CLAVICLE SCAPULA "
    "AXILLA EXTREMITY UPPEREXTREMITY",
    "leg": "SESAMOID "
    "LEG THIGH KNEE CALF ANKLE FOOT TOE HEEL CALCANEUS FEMUR TIBIA FIBULA PATELLA EXTREMITY LOWEREXTREMITY "
    "PELVISLOWEXTREMT HIP",
}  # fmt: skip
_OF_TERM: dict[str, frozenset[str]] = {
    term: frozenset(region for region, terms in _REGIONS.items() if term in terms.split())
    for terms_of_one in _REGIONS.values()
    for term in terms_of_one.split()
} | {"WHOLEBODY": frozenset(_REGIONS)}


def body_part_term(text: str) -> str | None:
    """The term that a text is, whatever its case and spaces; None for any other text.

    Example:
        >>> body_part_term(" Brain "), body_part_term("Mr. Smith's head")
        ('BRAIN', None)
    """
    term = "".join(text.upper().split())
    return term if term in _OF_TERM else None


def contradicts(term: str, others: Iterable[str]) -> bool:
    """Whether a body part lies in no region of the body that one of the others lies in.

    Example:
        >>> contradicts("BRAIN", ["CHEST"]), contradicts("LUNG", ["CHEST"])
        (True, False)
    """
    return _OF_TERM[term].isdisjoint(frozenset().union(*(_OF_TERM[other] for other in others)))


def usual_body_parts(terms: Iterable[str | None]) -> tuple[str, ...]:
    """The terms that at least 1 % of the cases with a term have, in alphabetical order; rarer ones may be errors."""
    counts = Counter(term for term in terms if term is not None)
    return tuple(sorted(term for term, count in counts.items() if count >= _LEAST_SHARE * counts.total()))
