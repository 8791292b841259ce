"""What the distribution is made of; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "ostore/__init__.py").read_text("utf-8")
VERSION = re.search('^__version__ = "(.+)"$', INIT, re.MULTILINE)
ETC = sorted(p.relative_to(HERE) for p in HERE.glob("etc/**/*") if p.is_file())
FOLDERS = sorted({path.parent for path in ETC})
PAGES = sorted(str(p.relative_to(HERE)) for p in HERE.glob("docs/man/*.1"))

setup(
    name="ostore",
    version=VERSION[1] if VERSION else None,
    description="A distributed, erasure-coded, self-mending object store",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["ostore", "ostore.*"]),
    # Only the plugin module: `twisted` and `twisted.plugins` belong to Twisted.
    py_modules=["twisted.plugins.ostore_plugins"],
    package_data={"ostore.backends.metadata": ["templates/*.json"]},
    # etc/a/b becomes share/ostore/a/b.
    data_files=[
        (
            str("share/ostore" / folder.relative_to("etc")),
            [str(path) for path in ETC if path.parent == folder],
        )
        for folder in FOLDERS
    ]
    + [("share/man/man1", PAGES)],
    install_requires=[
        "attrs>=23.1",
        "click>=8.2",
        "cffi>=1.16",
        "cryptography>=42",
        "fastcrc>=0.4",
        "prometheus_client>=0.20",
        # Brings ISA-L in its wheels for Linux; elsewhere zfec serves alone.
        "pyeclib>=1.8; platform_system == 'Linux'"
        " and (platform_machine == 'x86_64' or platform_machine == 'aarch64')",
        "pyopenssl>=24.3",
        "rich>=13.7",
        "service_identity>=24.1",
        "treq>=24.9",
        "twisted[tls]>=25.5",
        "txamqp>=0.8.2",
        "zfec>=1.6",
        "zope.interface>=6.0",
        "zstandard>=0.22",
    ],
    entry_points={"console_scripts": ["ostore = ostore.cli.main:main"]},
    extras_require={
        "dev": [
            "coverage>=7.10",
            "hypothesis",
            "import-linter>=2",
            "mypy",
            "mypy-zope",
            "ruff",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Filesystems",
    ],
)
