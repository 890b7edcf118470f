"""python -m palate.cli"""

from palate.cli import main

main()
