"""The sweep: generate, train and measure over guidance scales and prompt variants, and choose the best."""

from raysd.callable_package import make_callable

make_callable(__name__)
