"""Clients: plain and async, each verb written once for both."""
