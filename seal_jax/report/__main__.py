"""`seal-jax report PATH...`: see `console`."""

from seal_jax.runtime import interrupts

if __name__ == "__main__":
    interrupts.install()  # Before imports that take seconds.

from seal_jax.report import console

if __name__ == "__main__":
    raise SystemExit(console.main())
