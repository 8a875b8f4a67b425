"""Optional packages: the extras of setup.cfg, and how they are installed."""


def explain_missing_extra(package: str, extra: str) -> str:
    """Return the package that an extra brings and how to install it, as the object of a sentence.

    From the checkout, because `fanout` on PyPI is another project; editable, because a copy would no longer follow the
    checkout that `scripts/serve` installed.
    """
    return f"the package {package} (to install it: `pip install -e '.[{extra}]'` in Fanout's checkout)"
