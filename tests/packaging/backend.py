"""hatchling/build.py of the stand-in: `pip install -e` gets a choral with a command that does nothing.

It asks for a release that no lock has: nobody's business as long as pip is told to look at no requirement.
"""

import zipfile

INFO = "choral-0.dist-info"
CONTENTS = {
    "choral_stand_in.py": "def main(): pass\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: choral\nVersion: 0\nRequires-Dist: numpy>=99\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[console_scripts]\nchoral = choral_stand_in:main\n",
}


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    record = "".join(f"{path},,\n" for path in (*CONTENTS, f"{INFO}/RECORD"))
    with zipfile.ZipFile(f"{wheel_directory}/choral-0-py3-none-any.whl", "w") as archive:
        for inside, text in {**CONTENTS, f"{INFO}/RECORD": record}.items():
            archive.writestr(inside, text)
    return "choral-0-py3-none-any.whl"
