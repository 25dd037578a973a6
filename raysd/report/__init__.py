"""Reports: tables, figures, sample grids and one HTML page, made from result rows alone."""

from raysd.callable_package import make_callable

make_callable(__name__)
