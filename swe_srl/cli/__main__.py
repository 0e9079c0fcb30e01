"""`python -m swe_srl.cli`: the same as `swe-srl`."""

from swe_srl.cli import main

main()
