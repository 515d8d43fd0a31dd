"""Provisioning tokens and what a device does with one."""
