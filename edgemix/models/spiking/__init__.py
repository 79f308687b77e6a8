"""Spiking neurons and networks, one file each: sequence and step form of the same equations."""
