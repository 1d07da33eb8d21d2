"""Words of several languages by which columns and folders are known; all lower case, without accents.

They only support a guess, which is shown. The meaning of a label word is not guessed, except for ``malignant`` and
``benign`` as folder names.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names of columns.
PATIENT = _words(
    "patient patients pat patid patientid pid mrn subject subjects participant proband person patnr patientnr "
    "patienten patientin paziente paciente hospital"
)
ID_WORDS = _words("id case cases fall scan exam study nr no number nummer caso cas")  # that announce an id in a name
LABEL = _words(
    "label labels diagnosis diagnose diagnostic diagnostico histology histologie histologia histo pathology pathologie "
    "patologia malignancy malignant malignitat malignity dignitat dignity class klasse classe target outcome ergebnis "
    "befund result resultat cancer tumor tumour group gruppe groupe truth behaviour behavior y"
)
DIAMETER_WORDS = _words("diameter diam ø durchmesser diametre diametro")
SIZE_WORDS = _words("size grosse groesse taille")  # of a lesion, or of a person
SYSTEM = _words("system coordsystem coordinatesystem koordinatensystem space")
SIDE = _words("side laterality lateralitat seite cote lato left right breast")
SPLIT = _words("split set subset partition fold")
PERSON_NAMES = _words("name names vorname nachname surname firstname lastname nom cognome nombre apellido")
PERSONAL = _words(  # columns that identify a person, and free text: copied only when the user asks for it
    "name vorname nachname surname firstname lastname geburtsdatum gebdat geb dob birth birthdate birthday adresse "
    "address strasse street plz zip telefon phone email mail versicherung insurance ssn bemerkung bemerkungen "
    "kommentar comment comments notes note freitext text remark remarks anamnese history arzt doctor physician "
    "id ids uid uids accession mrn number nummer nr birthday insured nom cognome nombre apellido"
)
# Cells of columns.
SEX_CELLS = _words("m f w d o male female mann frau mannlich weiblich homme femme")
DIAGNOSIS_CELLS = _words(
    "benign malignant gutartig bosartig boesartig benigne maligne benigno maligno benin malin cancer carcinoma "
    "karzinom tumor tumour adenocarcinoma metastasis metastase"
)
ANSWER_CELLS = _words(  # of a label only where the column's name says so
    "neg pos negative positive negativ positiv normal yes no ja nein true false patient control case 0 1"
)
LEFT_CELLS, RIGHT_CELLS = (
    _words("left l links li gauche sinistra izquierda"),
    _words("right r rechts re droite destra derecha"),
)
# Names of folders.
MALIGNANT_FOLDERS = _words("malignant maligne maligno malin bosartig boesartig kwaadaardig")
BENIGN_FOLDERS = _words("benign benigne benigno benin gutartig goedaardig")
NEUTRAL_FOLDERS = _words(  # beside a label's word, they change nothing
    "case cases image images img scan scans ct mr mri us xr picture pictures photo photos patient patients group class "
    "label nodule nodules mass masses lesion lesions tumor tumors tumour tumours finding findings sample samples data "
    "set dataset nifti dicom png all fall falle bilder befunde knoten herd herde"
)
SPLIT_FOLDERS = {
    **dict.fromkeys(_words("train training"), "train"),
    **dict.fromkeys(_words("val valid validation dev"), "validation"),
    **dict.fromkeys(_words("cal calib calibration"), "calibration"),
    **dict.fromkeys(_words("test testing holdout"), "test"),
}
