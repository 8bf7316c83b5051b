"""`python -m bmt_keras.commands`: the same as `bmt`."""

from bmt_keras.commands import main

if __name__ == "__main__":
    main()
