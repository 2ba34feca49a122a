"""Every place that states a version states the same one."""

from __future__ import annotations

from arkinfer.runtime import library
from tests.support import versions


def test_package_version_is_the_same_everywhere() -> None:
    stated = versions.package()
    assert set(stated.values()) == {stated["pyproject.toml"]}
    native = library.load().ark_version
    assert native().decode("ascii") == stated["pyproject.toml"]


def test_abi_version_is_the_same_in_c_and_python() -> None:
    stated = versions.abi()
    assert set(stated.values()) == {stated["native/include/arkinfer.h"]}
    assert library.load().ark_abi_version() == int(stated["native/include/arkinfer.h"])
