"""What the commands do: one module each, usable from a script without the shell."""
