"""Google's generateContent format, on the Gemini API and on Vertex AI."""
