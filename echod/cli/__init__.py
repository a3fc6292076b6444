"""The commands of echod, one module for each. Only this package prints and exits."""
