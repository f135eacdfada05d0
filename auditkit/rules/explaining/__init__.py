"""Why a rule said what it said."""
