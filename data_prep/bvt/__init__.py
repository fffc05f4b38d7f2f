"""The batch test of a RAG service and its workbook."""
