// Downloads a file whenever `props.value` changes: {name, source, number}. A new number downloads it again.
watch('value', () => {
  const { name, source } = props.value || {};
  if (!source) return;
  const link = document.createElement('a');
  link.href = source;
  link.download = name;
  link.click();
});
