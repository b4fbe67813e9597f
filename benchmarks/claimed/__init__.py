"""The shape claims of the four papers as measurements, one room per paper; :mod:`claims` runs them."""
