// The app that `headwater serve` opens.
import { mount } from 'svelte';
import App from '../App.svelte';
import { address } from '../address.svelte';
import '../theme.css';
import './page.css';

address.follow();
const target = document.getElementById('app');
if (target) mount(App, { target });
