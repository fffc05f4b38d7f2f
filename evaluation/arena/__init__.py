"""The blind arena: two anonymous rewrites of one query, each with what it retrieves; a person says which is better.

versions   whose rewrites compete       rounds   one comparison, and the vote on it
batch      a workbook in, a workbook out     page     all of it in the browser
"""
